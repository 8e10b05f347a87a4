//! What tests choose in the finished module, where they find it by its first words.

use std::hint::black_box;

/// Nothing else in the module begins so: a version, a letter for its behaviour, and that
/// behaviour's parameter follow.
static SWITCHES: [u8; LENGTH] = *b"sidestream-test-version:0000000000:g:0000000000";

const LENGTH: usize = VERSION_AT + 2 * DIGITS + 3;
const VERSION_AT: usize = 24;
const DIGITS: usize = 10;

/// What one version of the module is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// All is well.
    Good,
    /// It traps when it is initialised.
    TrapAtInitialise,
    /// It finds fault with its pipeline when it is initialised.
    RejectAtInitialise,
    /// Each instance traps at its record of this number; the first one is 1.
    TrapAt(u32),
    /// It works so many times as long on each record.
    Slow(u32),
    /// It keeps so many bytes for each record.
    Leak(u32),
    /// Its values have so many bytes at least.
    Grow(u32),
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switches {
    pub(crate) version: u32,
    pub(crate) behaviour: Behaviour,
}

impl Switches {
    /// What stands in this module. Text that makes no sense is an error of the test that put it there.
    pub(crate) fn read() -> Option<Self> {
        // The optimiser must not know what stands there: it is another thing when it runs.
        Self::parse(black_box(&SWITCHES))
    }

    fn parse(bytes: &[u8; LENGTH]) -> Option<Self> {
        let mut fields = std::str::from_utf8(&bytes[VERSION_AT..]).ok()?.split(':');
        let (version, letter, parameter) = (fields.next()?, fields.next()?, fields.next()?);
        let parameter = parameter.parse().ok()?;
        let behaviour = match letter {
            "g" => Behaviour::Good,
            "i" => Behaviour::TrapAtInitialise,
            "r" => Behaviour::RejectAtInitialise,
            "t" => Behaviour::TrapAt(parameter),
            "s" => Behaviour::Slow(parameter),
            "l" => Behaviour::Leak(parameter),
            "o" => Behaviour::Grow(parameter),
            _ => return None,
        };
        Some(Self { version: version.parse().ok()?, behaviour })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_it_is_built_it_is_version_0_and_good() {
        let good = Switches { version: 0, behaviour: Behaviour::Good };
        assert_eq!(Switches::read(), Some(good));
    }

    #[test]
    fn every_behaviour_has_a_letter() {
        let parse = |behaviour: &str| {
            let text = format!("sidestream-test-version:0000000017:{behaviour}");
            Switches::parse(text.as_bytes().try_into().unwrap())
        };
        for (text, behaviour) in [
            ("g:0000000000", Behaviour::Good),
            ("i:0000000000", Behaviour::TrapAtInitialise),
            ("r:0000000000", Behaviour::RejectAtInitialise),
            ("t:0000001000", Behaviour::TrapAt(1_000)),
            ("s:0000000010", Behaviour::Slow(10)),
            ("l:0000065536", Behaviour::Leak(65_536)),
            ("o:4294967295", Behaviour::Grow(u32::MAX)),
        ] {
            assert_eq!(parse(text), Some(Switches { version: 17, behaviour }));
        }
        assert_eq!(parse("x:0000000000"), None);
        assert_eq!(parse("t:many     0"), None);
    }
}
