//! What an instance takes of the host besides its memories and tables, as far as its file tells:
//! wasmtime's limiter is not asked for globals, functions that others may call, and imports.

use std::borrow::Cow;

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ElementItems, Encoding, Instance, Parser, Payload,
};

/// How many types, imports, exports and the like a file may have of each.
const ITEMS_MAX: usize = 100_000;
/// How many components it may make instances of, those within others included.
const COMPONENTS_MAX: usize = 1_000;

/// Bytes of wasmtime's records: those of an instance, of a global, of an import or a function that
/// may be called from outside, of a memory, table or segment of data, of a function of a component.
const INSTANCE_BYTES: usize = 2_048;
const GLOBAL_BYTES: usize = 16;
const FUNCTION_BYTES: usize = 32;
const PART_BYTES: usize = 64;

/// What an instance is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// How many core instances.
    pub(super) instances: usize,
    /// How many instances of components.
    components: usize,
    /// What they take of the host.
    pub(super) bytes: usize,
}

impl Weight {
    fn add(&mut self, other: Self) {
        self.instances = self.instances.saturating_add(other.instances);
        self.components = self.components.saturating_add(other.components);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn add_bytes(&mut self, count: usize, each: usize) {
        self.bytes = self.bytes.saturating_add(count.saturating_mul(each));
    }
}

/// Why a file is not compiled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuch(pub(super) Cow<'static, str>);

/// Says what an instance of a component is made of, or why it is made of too much. Of a file that
/// is not valid it says what it can: the compiler says the rest.
pub(super) fn weigh(bytes: &[u8], instances_max: usize) -> Result<Weight, TooMuch> {
    let mut scales = Scales::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else { break };
        if scales.take(payload)?.is_none() {
            break;
        }
    }
    let weight = scales.whole;
    if weight.instances > instances_max {
        return Err(TooMuch(
            format!(
                "it is made of {} core instances and may be of {instances_max}; link it from fewer \
                 modules",
                weight.instances
            )
            .into(),
        ));
    }
    if weight.components > COMPONENTS_MAX {
        return Err(TooMuch(
            format!(
                "it is made of {} components and may be of {COMPONENTS_MAX}; compose it of fewer",
                weight.components
            )
            .into(),
        ));
    }
    Ok(weight)
}

/// A module or component that is being read.
enum Frame {
    Module(Core),
    Component(Scope),
}

/// What is known of a core module.
#[derive(Default)]
struct Core {
    imports: usize,
    functions: usize,
    globals: usize,
    /// How many functions may be called from outside, some perhaps counted twice.
    escaping: usize,
    parts: usize,
}

impl Core {
    fn weight(&self) -> Weight {
        let escaping = self.escaping.min(self.functions.saturating_add(self.imports));
        let mut weight = Weight { instances: 1, components: 0, bytes: INSTANCE_BYTES };
        weight.add_bytes(self.globals, GLOBAL_BYTES);
        weight.add_bytes(self.imports.saturating_add(escaping), FUNCTION_BYTES);
        weight.add_bytes(self.parts, PART_BYTES);
        weight
    }
}

/// The modules and components that a component may make instances of, by their indices; none if it
/// is handed them.
#[derive(Default)]
struct Scope {
    modules: Vec<Option<Weight>>,
    components: Vec<Option<Weight>>,
    total: Weight,
}

#[derive(Default)]
struct Scales {
    frames: Vec<Frame>,
    whole: Weight,
    types: usize,
    imports: usize,
    exports: usize,
}

impl Scales {
    /// Takes in a piece of the file; none if it makes no sense.
    fn take(&mut self, payload: Payload<'_>) -> Result<Option<()>, TooMuch> {
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                self.frames.push(Frame::Module(Core::default()));
            }
            Payload::Version { encoding: Encoding::Component, .. } => {
                self.frames.push(Frame::Component(Scope::default()));
            }
            Payload::End(_) => return Ok(self.end()),
            payload => {
                self.count(&payload)?;
                return match self.frames.last_mut() {
                    Some(Frame::Module(core)) => Ok(core.take(payload)),
                    Some(Frame::Component(_)) => self.component(payload),
                    None => Ok(None),
                };
            }
        }
        Ok(Some(()))
    }

    /// Holds what there may be much of to its bound.
    fn count(&mut self, payload: &Payload<'_>) -> Result<(), TooMuch> {
        let (sum, count, what) = match payload {
            Payload::TypeSection(all) => (&mut self.types, all.count(), "types"),
            Payload::CoreTypeSection(all) => (&mut self.types, all.count(), "types"),
            Payload::ComponentTypeSection(all) => (&mut self.types, all.count(), "types"),
            Payload::ImportSection(all) => (&mut self.imports, all.count(), "imports"),
            Payload::ComponentImportSection(all) => (&mut self.imports, all.count(), "imports"),
            Payload::ComponentAliasSection(all) => (&mut self.imports, all.count(), "imports"),
            Payload::ExportSection(all) => (&mut self.exports, all.count(), "exports"),
            Payload::ComponentExportSection(all) => (&mut self.exports, all.count(), "exports"),
            _ => return Ok(()),
        };
        *sum = sum.saturating_add(count as usize);
        match *sum <= ITEMS_MAX {
            true => Ok(()),
            false => Err(TooMuch(format!("it has {sum} {what} and may have {ITEMS_MAX}").into())),
        }
    }

    fn end(&mut self) -> Option<()> {
        let weight = match self.frames.pop()? {
            Frame::Module(core) => core.weight(),
            Frame::Component(scope) => {
                let Some(Frame::Component(outer)) = self.frames.last_mut() else {
                    self.whole = scope.total;
                    return Some(());
                };
                outer.components.push(Some(scope.total));
                return Some(());
            }
        };
        match self.frames.last_mut()? {
            Frame::Component(outer) => outer.modules.push(Some(weight)),
            Frame::Module(_) => return None,
        }
        Some(())
    }

    fn component(&mut self, payload: Payload<'_>) -> Result<Option<()>, TooMuch> {
        if let Payload::ComponentAliasSection(aliases) = payload {
            return Ok(self.aliases(aliases.into_iter()));
        }
        match self.frames.last_mut() {
            Some(Frame::Component(scope)) => scope.take(payload),
            Some(Frame::Module(_)) | None => Ok(None),
        }
    }

    fn aliases<'a>(
        &mut self,
        aliases: impl Iterator<Item = wasmparser::Result<ComponentAlias<'a>>>,
    ) -> Option<()> {
        for alias in aliases {
            let (kind, found) = match alias.ok()? {
                ComponentAlias::InstanceExport { kind, .. } => (kind, None),
                ComponentAlias::Outer { kind, count, index } => {
                    let above = self.frames.len().checked_sub(1 + count as usize)?;
                    let Frame::Component(scope) = self.frames.get(above)? else { return None };
                    match kind {
                        ComponentOuterAliasKind::CoreModule => {
                            (ComponentExternalKind::Module, *scope.modules.get(index as usize)?)
                        }
                        ComponentOuterAliasKind::Component => (
                            ComponentExternalKind::Component,
                            *scope.components.get(index as usize)?,
                        ),
                        ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Type => {
                            continue;
                        }
                    }
                }
                ComponentAlias::CoreInstanceExport { .. } => continue,
            };
            let Some(Frame::Component(scope)) = self.frames.last_mut() else { return None };
            scope.define(kind, found);
        }
        Some(())
    }
}

impl Core {
    fn take(&mut self, payload: Payload<'_>) -> Option<()> {
        match payload {
            Payload::ImportSection(all) => self.imports += all.count() as usize,
            Payload::FunctionSection(all) => self.functions += all.count() as usize,
            Payload::GlobalSection(all) => {
                // Each may name a function.
                self.globals += all.count() as usize;
                self.escaping += all.count() as usize;
            }
            Payload::ExportSection(all) => self.escaping += all.count() as usize,
            Payload::TableSection(all) => {
                self.parts += all.count() as usize;
                self.escaping += all.count() as usize;
            }
            Payload::MemorySection(all) => self.parts += all.count() as usize,
            Payload::DataSection(all) => self.parts += all.count() as usize,
            Payload::StartSection { .. } => self.escaping += 1,
            Payload::ElementSection(all) => {
                for element in all {
                    self.escaping += match element.ok()?.items {
                        ElementItems::Functions(all) => all.count() as usize,
                        ElementItems::Expressions(_, all) => all.count() as usize,
                    };
                }
            }
            _ => {}
        }
        Some(())
    }
}

impl Scope {
    fn take(&mut self, payload: Payload<'_>) -> Result<Option<()>, TooMuch> {
        match payload {
            Payload::InstanceSection(instances) => {
                for instance in instances {
                    match instance {
                        Ok(Instance::Instantiate { module_index, .. }) => {
                            let module = self.modules.get(module_index as usize).copied();
                            self.total.add(known(module)?);
                        }
                        Ok(Instance::FromExports(_)) => {}
                        Err(_) => return Ok(None),
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances {
                    match instance {
                        Ok(ComponentInstance::Instantiate { component_index, .. }) => {
                            let component = self.components.get(component_index as usize).copied();
                            self.total.add(known(component)?);
                            self.total.components = self.total.components.saturating_add(1);
                        }
                        Ok(ComponentInstance::FromExports(_)) => {}
                        Err(_) => return Ok(None),
                    }
                }
            }
            Payload::ComponentCanonicalSection(all) => {
                self.total.add_bytes(all.count() as usize, PART_BYTES);
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    let Ok(import) = import else { return Ok(None) };
                    self.define(import.ty.kind(), None);
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    let Ok(export) = export else { return Ok(None) };
                    let index = export.index as usize;
                    let found = match export.kind {
                        ComponentExternalKind::Module => self.modules.get(index).copied().flatten(),
                        _ => self.components.get(index).copied().flatten(),
                    };
                    self.define(export.kind, found);
                }
            }
            _ => {}
        }
        Ok(Some(()))
    }

    /// Gives the next index of a module or component to what was found.
    fn define(&mut self, kind: ComponentExternalKind, found: Option<Weight>) {
        match kind {
            ComponentExternalKind::Module => self.modules.push(found),
            ComponentExternalKind::Component => self.components.push(found),
            ComponentExternalKind::Func
            | ComponentExternalKind::Value
            | ComponentExternalKind::Type
            | ComponentExternalKind::Instance => {}
        }
    }
}

/// What is instantiated, if its code is in the file; an index that is not there is for the compiler
/// to refuse.
fn known(found: Option<Option<Weight>>) -> Result<Weight, TooMuch> {
    match found {
        Some(Some(weight)) => Ok(weight),
        Some(None) => Err(TooMuch(
            "one of its components makes instances of code that it is handed; link it statically"
                .into(),
        )),
        None => Ok(Weight::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(text: &str) -> Result<Weight, TooMuch> {
        weigh(&wat::parse_str(text).unwrap(), 10)
    }

    #[test]
    fn every_instance_counts() {
        let one = weight(
            "(component (core module $m (global i32 (i32.const 1))) (core instance (instantiate $m)))",
        );
        let one = one.unwrap();
        // Its global may name a function, but there is none.
        let expected = INSTANCE_BYTES + GLOBAL_BYTES;
        assert_eq!(one, Weight { instances: 1, components: 0, bytes: expected });
        let nested = weight(
            "(component $outer
                (core module $m (func $f) (func) (elem declare func $f $f) (export \"f\" (func $f)))
                (component $inner
                    (alias outer $outer $m (core module $n))
                    (core instance (instantiate $n))
                    (core instance (instantiate $n)))
                (instance (instantiate $inner))
                (instance (instantiate $inner)))",
        );
        let expected = 4 * (INSTANCE_BYTES + 2 * FUNCTION_BYTES);
        assert_eq!(nested.unwrap(), Weight { instances: 4, components: 2, bytes: expected });
    }

    #[test]
    fn what_doubles_again_and_again_is_refused() {
        let mut text = "(component (component $c0)".to_owned();
        for level in 1..60 {
            text.push_str(&format!(
                "(component $c{level}
                    (alias outer 1 $c{below} (component $below))
                    (instance (instantiate $below)) (instance (instantiate $below)))",
                below = level - 1
            ));
        }
        text.push_str("(instance (instantiate $c59)))");
        assert!(weight(&text).unwrap_err().0.contains("components and may be of 1000"));
    }

    #[test]
    fn code_that_is_handed_over_is_refused() {
        let text = "(component
            (component $c (import \"m\" (core module $m)) (core instance (instantiate $m)))
            (core module $own)
            (instance (instantiate $c (with \"m\" (core module $own)))))";
        assert!(weight(text).unwrap_err().0.contains("link it statically"));
    }
}
