//! How a section of the pipeline file is defined: each of its keys once, with all that is known of it.

use std::time::Duration;

use schemars::Schema;
use serde_json::{Value, json};

use crate::config::{problem::Problem, reader::Reader, scalar::Field, setting::Setting};

/// Defines a section: for each key its name, its kind, its default as the file would have it, a
/// bound that is narrower than that of its kind, and what it means.
///
/// ```text
/// section! {
///     /// Bounds of single things.
///     LimitsSection("limits.") => Limits {
///         /// How long a module may work on one batch.
///         batch_time_max: Duration = "1s" in NOT_ZERO;
///     } and {
///         /// What is no scalar, and read elsewhere.
///         pub more: Option<MoreSection>,
///     }
/// }
/// ```
///
/// From that come `LimitsSection`, the section as it is written, with its JSON Schema; `Limits`, the
/// values of its keys, whose `Default` are their defaults; and `LimitsSection::read` from the one to
/// the other. A key without a default may be left out and is an `Option` then. Messages name a key with
/// what stands in the brackets before it.
macro_rules! section {
    (@value $kind:ident = $default:literal) => {
        <$kind as $crate::config::setting::Setting>::Value
    };
    (@value $kind:ident) => {
        Option<<$kind as $crate::config::setting::Setting>::Value>
    };
    (@default $kind:ident = $default:literal) => {
        $crate::config::section::default::<$kind>($default)
    };
    (@default $kind:ident) => {
        None
    };
    (@read $read:expr, $kind:ident = $default:literal) => {
        $read.unwrap_or_else(|| $crate::config::section::default::<$kind>($default))
    };
    (@read $read:expr, $kind:ident) => {
        $read
    };
    (
        $(#[$section_meta:meta])*
        $section:ident($prefix:literal) => $(#[$values_meta:meta])* $values:ident {
            $(
                $(#[doc = $help:literal])+
                $key:ident: $kind:ident $(= $default:literal)? $(in $bound:expr)?;
            )+
        }
        $(and { $($more:tt)+ })?
    ) => {
        $(#[$section_meta])*
        #[derive(serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $section {
            $(
                $(#[doc = $help])+
                $(#[schemars(extend("default" = $crate::config::section::as_written($default)))])?
                $(#[schemars(transform = $crate::config::section::narrowed($bound))])?
                pub $key: Option<$crate::config::scalar::Field<$kind>>,
            )+
            $($($more)+)?
        }

        $(#[$values_meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $values {
            $(
                $(#[doc = $help])+
                pub $key: $crate::config::section::section!(@value $kind $(= $default)?),
            )+
        }

        impl Default for $values {
            fn default() -> Self {
                Self {
                    $($key: $crate::config::section::section!(@default $kind $(= $default)?),)+
                }
            }
        }

        impl $section {
            /// The values of the keys; one that is not given, or refused, has its default.
            pub(crate) fn read(&self, reader: &mut $crate::config::reader::Reader<'_>) -> $values {
                $values {
                    $(
                        $key: $crate::config::section::section!(
                            @read
                            $crate::config::section::key::<$kind>(
                                reader,
                                concat!($prefix, stringify!($key)),
                                self.$key.as_ref(),
                                &[$($bound)?],
                            ),
                            $kind $(= $default)?
                        ),
                    )+
                }
            }
        }
    };
}

pub(crate) use section;

/// A bound of a key, narrower than that of its kind.
pub(crate) struct Bound<T> {
    pub(crate) is_within: fn(&T) -> bool,
    /// What is wrong with a value beyond it, after the key's name.
    pub(crate) refusal: &'static str,
    pub(crate) remedy: &'static str,
    /// What it adds to the JSON Schema of the kind.
    pub(crate) schema: fn() -> Value,
}

/// For times within which nothing could be done.
pub(crate) const NOT_ZERO: Bound<Duration> = Bound {
    is_within: |time| !time.is_zero(),
    refusal: "can't be zero",
    remedy: "write at least `1ms`",
    schema: || json!({ "title": "duration above zero", "not": { "pattern": "^0+ ?[a-zµ]*$" } }),
};

/// A default, as the file would have it, as a value.
pub(crate) fn default<T: Setting>(text: &str) -> T::Value {
    T::parse(text).expect("every default is a valid value")
}

/// A default as it stands in the schema: as YAML would take it.
pub(crate) fn as_written(default: &str) -> Value {
    serde_json::from_str(default).unwrap_or_else(|_| default.into())
}

/// Narrows the schema of a key: its kind is the first alternative of all.
pub(crate) fn narrowed<T>(Bound { schema: narrower, .. }: Bound<T>) -> impl FnMut(&mut Schema) {
    move |schema| {
        let mut kind = schema.ensure_object();
        while kind.contains_key("anyOf") {
            kind = kind["anyOf"][0].as_object_mut().expect("every alternative is an object");
        }
        if let Value::Object(narrower) = narrower() {
            kind.extend(narrower);
        }
    }
}

/// Reads a key of a section, unless it is not given, or refused.
pub(crate) fn key<T: Setting>(
    reader: &mut Reader<'_>,
    name: &str,
    field: Option<&Field<T>>,
    bounds: &[Bound<T::Value>],
) -> Option<T::Value> {
    let field = field?;
    let value = reader.required(name, field)?;
    let beyond = bounds.iter().find(|bound| !(bound.is_within)(&value));
    if let Some(Bound { refusal, remedy, .. }) = beyond {
        let message = format!("`{name}` {refusal}");
        reader.problems.push(Problem::new(field.at, message, *remedy));
        return None;
    }
    Some(value)
}
