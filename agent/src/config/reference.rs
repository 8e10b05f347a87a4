//! The form of references: `${VAR}`, `${VAR:-default}` and `${file:/path}`. Defaults and paths may
//! have references in them, and braces that are closed. `$${` stands for a plain `${`.

/// How deep references may stand in one another.
const DEPTH_MAX: usize = 16;

/// How much of a text a message repeats, in characters.
const QUOTED_MAX: usize = 60;

/// A reference that leads nowhere.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// A piece of a scalar.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// As it stands.
    Text(String),
    /// An environment variable, and what is there without it.
    Variable { name: &'a str, default: Option<Vec<Self>> },
    /// The content of a file.
    File(Vec<Self>),
}

/// Takes a scalar apart.
pub(crate) fn parse(text: &str) -> Result<Vec<Part<'_>>, Missing> {
    Parser { rest: text, depth: 0 }.parts(None)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// Reads to the end, or inside a reference, which began with `reference`, to its `}`.
    fn parts(&mut self, reference: Option<&'a str>) -> Result<Vec<Part<'a>>, Missing> {
        let (mut parts, mut text, mut open) = (Vec::new(), String::new(), 0);
        while let Some(next) = self.rest.chars().next() {
            if self.take("$${") {
                text.push_str("${");
            } else if self.rest.starts_with("${") {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(self.reference()?);
            } else {
                self.rest = &self.rest[next.len_utf8()..];
                match (reference, next) {
                    (Some(_), '{') => open += 1,
                    (Some(_), '}') if open > 0 => open -= 1,
                    (Some(_), '}') => return Ok(with_text(parts, text)),
                    _ => {}
                }
                text.push(next);
            }
        }
        match reference {
            None => Ok(with_text(parts, text)),
            Some(reference) => Err(unclosed(reference)),
        }
    }

    fn reference(&mut self) -> Result<Part<'a>, Missing> {
        let whole = self.rest;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Missing {
                message: format!("more than {DEPTH_MAX} references stand inside one another"),
                remedy: "give some of the defaults as plain text".into(),
            });
        }
        self.rest = &whole["${".len()..];
        let part = if self.take("file:") {
            Part::File(self.parts(Some(whole))?)
        } else {
            let name = self.name();
            if name.is_empty() {
                return Err(odd(whole));
            }
            let default = match (self.take(":-"), self.take("}")) {
                (true, true) => Some(Vec::new()),
                (true, false) => Some(self.parts(Some(whole))?),
                (false, true) => None,
                (false, false) => return Err(odd(whole)),
            };
            Part::Variable { name, default }
        };
        self.depth -= 1;
        Ok(part)
    }

    /// Takes a variable's name; it is empty if there is none.
    fn name(&mut self) -> &'a str {
        let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
        let end = match self.rest.starts_with(letter) {
            true => self.rest.find(|c| !letter(c) && !c.is_ascii_digit()),
            false => Some(0),
        };
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        name
    }

    fn take(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

fn with_text(mut parts: Vec<Part<'_>>, text: String) -> Vec<Part<'_>> {
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

fn unclosed(reference: &str) -> Missing {
    Missing {
        message: format!("`{}` has no `}}`", quoted(reference)),
        remedy: "close it, or write `$${` for a plain `${`".into(),
    }
}

fn odd(reference: &str) -> Missing {
    let Some(end) = reference.find('}') else { return unclosed(reference) };
    Missing {
        message: format!("`{}` is not a reference", quoted(&reference[..=end])),
        remedy: "write `${VARIABLE}`, `${VARIABLE:-default}` or `${file:/path}`; `$${` stands for \
                 a plain `${`"
            .into(),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED_MAX).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}
