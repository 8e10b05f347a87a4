//! `sidestream dead-letter replay`.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    arguments::{HowToReplay, ReplayChoice},
    open, text, watched,
};
use crate::{
    cli::{
        Exit,
        finding::{self, About, Finding},
        output::Output,
    },
    dead_letters::{Homeless, Place, Replay, Replayed, Selection},
};

pub(super) fn run(
    file: &Path,
    choice: &ReplayChoice,
    how: &HowToReplay,
    output: &mut Output,
) -> Result<Exit, Vec<Finding>> {
    let mut letters = open(file)?;
    let places: Vec<Place> = choice
        .letters
        .iter()
        .map(|place| place.resolve(file, &letters))
        .collect::<Result<_, _>>()?;
    let selection = Selection { places, offset: choice.offset, ..choice.choice.selection() };
    let (again, dry_run) = (how.again, how.dry_run);
    let anywhere = how.anywhere;
    let replay = Replay { selection, again, to: how.to.clone(), anywhere, dry_run };
    let replayed = watched(file, |watch| letters.replay(&replay, watch))?;
    if !replayed.missing.is_empty() {
        return Err(replayed.missing.iter().map(nothing_at).collect());
    }
    let findings = findings(&replayed);
    output.human(&lines(&replayed, dry_run));
    output.findings(&findings, &details(&replayed, dry_run));
    Ok(finding::exit(&findings))
}

/// The problem that there is no letter where one is looked for.
pub(super) fn nothing_at(place: &Place) -> Finding {
    Finding {
        remedy: "`sidestream dead-letter list` tells where there are some".to_owned(),
        ..Finding::new(About::Run, format!("there is no dead letter at {}", text::place(place)))
    }
}

fn lines(replayed: &Replayed, dry_run: bool) -> Vec<String> {
    let word = if dry_run { "would put back" } else { "put back" };
    let put_back = replayed.put_back.iter();
    let mut lines: Vec<String> = put_back
        .map(|(topic, count)| format!("{word} {count} into {}", text::clean(topic, usize::MAX)))
        .collect();
    if lines.is_empty() {
        lines.push("nothing to put back".to_owned());
    }
    if replayed.before > 0 {
        let before = replayed.before;
        lines.push(format!("{before} were put back before; `--again` puts them back once more"));
    }
    lines.extend(text::foreign_marks(replayed.foreign_marks));
    lines.push(format!("{} {} left", replayed.left, if dry_run { "would be" } else { "are" }));
    lines
}

/// What was asked for and can't be done.
fn findings(replayed: &Replayed) -> Vec<Finding> {
    let Homeless { handed_over, without_source, elsewhere, cut_down } = replayed.homeless;
    let to = "put them into one with `--to TOPIC`";
    let reasons = [
        (handed_over, "another transform handed them over inside the task", to),
        (without_source, "they do not say where they came from, so a punctuation caused them", to),
        (
            elsewhere,
            "they say that they came from a topic that this pipeline does not read",
            "look at them with `sidestream dead-letter show`; if that is right, put them back there with \
             `--anywhere`, else into a topic with `--to TOPIC`",
        ),
    ];
    let homeless =
        reasons.into_iter().filter(|(count, ..)| *count > 0).map(|(count, why, remedy)| Finding {
            remedy: remedy.to_owned(),
            ..Finding::new(About::Run, format!("{count} have no topic to go back to: {why}"))
        });
    let cut_down = (cut_down > 0).then(|| Finding {
        remedy: "put the records themselves in again, from where the letters say that they stand"
            .to_owned(),
        ..Finding::new(
            About::Run,
            format!("{cut_down} lack a part of their record, since brokers refused the whole"),
        )
    });
    homeless.chain(cut_down).collect()
}

fn details(replayed: &Replayed, dry_run: bool) -> Value {
    json!({
        "dry_run": dry_run,
        "put_back": replayed.put_back,
        "put_back_before": replayed.before,
        "foreign_marks": replayed.foreign_marks,
        "without_topic": {
            "handed_over": replayed.homeless.handed_over,
            "without_source": replayed.homeless.without_source,
            "elsewhere": replayed.homeless.elsewhere,
        },
        "cut_down": replayed.homeless.cut_down,
        "left": replayed.left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_and_what_was_not_is_told() {
        let mut replayed = Replayed { before: 3, left: 2, ..Replayed::default() };
        replayed.put_back.insert("words".to_owned(), 12);
        assert_eq!(
            lines(&replayed, false),
            [
                "put back 12 into words",
                "3 were put back before; `--again` puts them back once more",
                "2 are left",
            ]
        );
        assert_eq!(lines(&replayed, true)[0], "would put back 12 into words");
        assert_eq!(lines(&Replayed::default(), false), ["nothing to put back", "0 are left"]);
        let forged = Replayed { foreign_marks: 5, ..Replayed::default() };
        assert!(lines(&forged, false)[1].starts_with("5 records say that a letter was put back"));
        assert!(findings(&replayed).is_empty());
        assert_eq!(details(&replayed, false)["put_back"]["words"], 12);
    }

    #[test]
    fn what_has_no_topic_is_a_problem_with_a_remedy() {
        let homeless = Homeless { handed_over: 1, without_source: 2, elsewhere: 3, cut_down: 4 };
        let replayed = Replayed { homeless, ..Replayed::default() };
        let told: Vec<String> = findings(&replayed).iter().map(ToString::to_string).collect();
        assert!(told[0].contains("1 have no topic") && told[0].contains("--to"), "{told:?}");
        assert!(told[1].contains("2 have no topic") && told[1].contains("punctuation"), "{told:?}");
        assert!(told[2].contains("3 have no topic") && told[2].contains("--anywhere"), "{told:?}");
        assert!(told[3].contains("4 lack a part of their record"), "{told:?}");
    }
}
