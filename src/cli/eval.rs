//! `tinyfind eval`: how good a model is.

use std::fmt::Write as _;
use std::num::NonZeroUsize;

use clap::builder::styling::Style;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::globals::Globals;
use super::hits::print_json;
use super::open::open_bundle;
use super::printer::{FAINT, GOOD, Printer, STRONG, WARNING};
use super::progress::Progress;
use super::{Outcome, positive, units};
use crate::eval::{Figure, Goal, HELD_OUT, ModelJudge, Part, Report, Reporter, Unit, evaluate};
use crate::train::scenes::Split;

/// Measure how good a model is.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    command: EvalCommand,
}

#[derive(Debug, Subcommand)]
enum EvalCommand {
    /// Show a model drawn scenes that it was not trained on, and compare what it says with them
    Scenes(ScenesArgs),
}

/// Show a model drawn scenes that it was not trained on, and compare what it says with them.
#[derive(Debug, Args)]
#[command(
    after_help = "The scenes are drawn anew, always the same ones, and the model meets them as it meets photos.
Columns: `cases` is how many captions, pairs or questions a figure was taken from; `no picture`
is what guessing is worth, or always saying what is right most often; `no question` is what
seeing the picture is worth to one who does not hear about what he is asked.

  retrieval  the right picture for a caption, and the reverse, is the first (R@1) or among the
             first five (R@5) of up to 1,000 whose captions are each true of one of them; by
             vectors (ITC), and with the first ten put in order by a closer look (ITM)
  binding    the true caption scores above the same caption with one false fact: another colour,
             kind, setting or count, two colours exchanged, a relation reversed; by ITC, ITM and
             the language model's probability (LM); AUC is 0.5 by chance and 1 without mistakes
  captions   everything there is named with its colour and number, and nothing else
  answers    questions answered right, word for word

JSON keys: model, split, scenes, part, figure, unit (share or auc), cases, value, no_picture,
no_question, goal, met. Values lie between 0 and 1 and are null where there is none.

Examples:
  tinyfind eval scenes
  tinyfind --model nano.gguf eval scenes --split all
  tinyfind eval scenes --scenes 200 --json"
)]
struct ScenesArgs {
    /// How many scenes to draw of each split
    #[arg(long, value_name = "N", value_parser = positive, default_value = "2000")]
    scenes: NonZeroUsize,

    /// Which scenes
    #[arg(long, value_enum, default_value_t = SplitChoice::Test)]
    split: SplitChoice,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitChoice {
    /// Such as the model was trained on, but none of those
    Test,
    /// With pairs of kind and colour, or relations of two kinds, that no training scene has
    Combinations,
    /// Drawn in a style that no training scene has
    Style,
    /// All three, one after the other
    All,
}

impl SplitChoice {
    fn splits(self) -> Vec<Split> {
        match self {
            Self::Test => vec![Split::Test],
            Self::Combinations => vec![Split::Combinations],
            Self::Style => vec![Split::Style],
            Self::All => HELD_OUT.to_vec(),
        }
    }
}

pub(crate) fn run(
    args: &EvalArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> anyhow::Result<Outcome> {
    match &args.command {
        EvalCommand::Scenes(args) => scenes(args, globals, printer),
    }
}

fn scenes(args: &ScenesArgs, globals: &Globals, printer: &mut Printer) -> anyhow::Result<Outcome> {
    let mut model = open_bundle(globals, None, printer)?;
    let (name, fingerprint) = (model.spec().name.clone(), model.spec().fingerprint.clone());
    if !args.json {
        let short: String = fingerprint.chars().take(12).collect();
        let short = printer.paint(FAINT, &format!("({short})"));
        writeln!(printer.stdout(), "model     {name} {short}")?;
    }
    for split in args.split.splits() {
        let mut bar = Bar(Progress::new(globals));
        let mut judge = ModelJudge::new(&mut model);
        let report = evaluate(&mut judge, split, args.scenes.get(), &mut bar)?;
        drop(bar);
        if args.json {
            for figure in &report.figures {
                print_json(printer, &JsonFigure::new(&name, &report, figure))?;
            }
        } else {
            let text = table(&report, &|style, text| printer.paint(style, text));
            write!(printer.stdout(), "\n{text}")?;
        }
        // A split takes minutes: what is known is shown.
        printer.flush()?;
    }
    Ok(Outcome::Done)
}

/// Progress of the evaluation on stderr.
struct Bar(Progress);

impl Reporter for Bar {
    fn begin(&mut self, phase: &'static str, steps: usize) {
        self.0.begin(phase, Some(steps as u64));
    }

    fn advance(&mut self, steps: usize) {
        self.0.advance(steps as u64);
    }
}

/// A figure as `--json` prints it. The keys are part of the command line: they stay.
#[derive(Debug, Serialize)]
struct JsonFigure<'a> {
    model: &'a str,
    split: &'static str,
    scenes: usize,
    part: &'static str,
    figure: &'a str,
    unit: &'static str,
    cases: usize,
    value: Option<f64>,
    no_picture: Option<f64>,
    no_question: Option<f64>,
    goal: Option<f64>,
    met: Option<bool>,
}

impl<'a> JsonFigure<'a> {
    fn new(model: &'a str, report: &Report, figure: &'a Figure) -> Self {
        Self {
            model,
            split: split_name(report.split),
            scenes: report.scenes,
            part: figure.part.name(),
            figure: &figure.name,
            unit: match figure.unit {
                Unit::Share => "share",
                Unit::Auc => "auc",
            },
            cases: figure.cases,
            value: figure.value,
            no_picture: figure.no_picture,
            no_question: figure.no_question,
            goal: figure.goal.map(|goal| match goal {
                Goal::AtLeast(goal) | Goal::Above(goal) => goal,
            }),
            met: figure.is_met(),
        }
    }
}

fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Test => "test",
        Split::Combinations => "combinations",
        Split::Style => "style",
    }
}

fn about(split: Split) -> &'static str {
    match split {
        Split::Train => "scenes of the training",
        Split::Test => "scenes like those of the training, none of them seen",
        Split::Combinations => "scenes with combinations that the training never showed",
        Split::Style => "scenes in a style that the training never showed",
    }
}

/// The figures as a person reads them, part by part, in columns.
fn table(report: &Report, paint: &dyn Fn(Style, &str) -> String) -> String {
    let split = paint(STRONG, split_name(report.split));
    let (scenes, gallery) =
        (units::count(report.scenes as u64), units::count(report.gallery as u64));
    let mut text = format!(
        "split     {split}: {}\nscenes    {scenes}; {gallery} of them to find one among\n",
        about(report.split)
    );
    let longest = report.figures.iter().map(|it| it.name.chars().count()).max().unwrap_or(0);
    let mut part: Option<Part> = None;
    for figure in &report.figures {
        if part != Some(figure.part) {
            part = Some(figure.part);
            let name =
                paint(STRONG, &format!("{:<width$}", figure.part.name(), width = longest + 2));
            let columns = "  cases  measured  no picture  no question  goal";
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{name}  {}", paint(FAINT, columns));
        }
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |it| shown(it, figure.unit));
        let line = format!(
            "  {:<longest$}  {:>7}  {:>8}  {:>10}  {:>11}  {}",
            figure.name,
            units::count(figure.cases as u64),
            number(figure.value),
            number(figure.no_picture),
            number(figure.no_question),
            goal(figure, paint),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `>= 90.0 %  missed`.
fn goal(figure: &Figure, paint: &dyn Fn(Style, &str) -> String) -> String {
    let goal = match figure.goal {
        Some(Goal::AtLeast(goal)) => format!(">= {}", shown(goal, figure.unit)),
        Some(Goal::Above(goal)) => format!(">  {}", shown(goal, figure.unit)),
        None => return String::new(),
    };
    match figure.is_met() {
        Some(true) => format!("{goal}  {}", paint(GOOD, "met")),
        Some(false) => format!("{goal}  {}", paint(WARNING, "missed")),
        None => goal,
    }
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Share => format!("{:.1} %", 100.0 * value),
        Unit::Auc => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(part: Part, name: &str, unit: Unit, levels: [Option<f64>; 3]) -> Figure {
        let [value, no_picture, no_question] = levels;
        let name = name.to_owned();
        Figure { part, name, unit, cases: 1234, value, no_picture, no_question, goal: None }
    }

    fn report() -> Report {
        let retrieval = |name, value: f64, goal| Figure {
            goal: Some(goal),
            ..figure(Part::Retrieval, name, Unit::Share, [Some(value), Some(0.001), None])
        };
        Report {
            split: Split::Combinations,
            scenes: 2000,
            gallery: 1000,
            figures: vec![
                retrieval("text to image, R@1, ITC", 0.847, Goal::AtLeast(0.9)),
                retrieval("text to image, R@1, ITM of 10", 0.912, Goal::Above(0.847)),
                Figure {
                    goal: Some(Goal::AtLeast(0.95)),
                    ..figure(
                        Part::Binding,
                        "AUC over all edits, LM",
                        Unit::Auc,
                        [Some(0.9512), Some(0.5), None],
                    )
                },
                figure(Part::Answers, "colour", Unit::Share, [Some(0.9), Some(0.0912), Some(0.7)]),
                Figure { cases: 0, ..figure(Part::Answers, "match", Unit::Share, [None; 3]) },
            ],
        }
    }

    #[test]
    fn the_table_shows_what_each_figure_must_be_compared_with() {
        let plain = |_, text: &str| text.to_owned();
        insta::assert_snapshot!(table(&report(), &plain), @r"
        split     combinations: scenes with combinations that the training never showed
        scenes    2,000; 1,000 of them to find one among

        retrieval                          cases  measured  no picture  no question  goal
          text to image, R@1, ITC          1,234    84.7 %       0.1 %            -  >= 90.0 %  missed
          text to image, R@1, ITM of 10    1,234    91.2 %       0.1 %            -  >  84.7 %  met

        binding                            cases  measured  no picture  no question  goal
          AUC over all edits, LM           1,234     0.951       0.500            -  >= 0.950  met

        answers                            cases  measured  no picture  no question  goal
          colour                           1,234    90.0 %       9.1 %       70.0 %
          match                                0         -           -            -
        ");
    }

    #[test]
    fn json_names_every_level() {
        let report = report();
        let line = |at: usize| {
            serde_json::to_string(&JsonFigure::new("nano", &report, &report.figures[at])).unwrap()
        };
        insta::assert_snapshot!(line(1), @r#"{"model":"nano","split":"combinations","scenes":2000,"part":"retrieval","figure":"text to image, R@1, ITM of 10","unit":"share","cases":1234,"value":0.912,"no_picture":0.001,"no_question":null,"goal":0.847,"met":true}"#);
        insta::assert_snapshot!(line(4), @r#"{"model":"nano","split":"combinations","scenes":2000,"part":"answers","figure":"match","unit":"share","cases":0,"value":null,"no_picture":null,"no_question":null,"goal":null,"met":null}"#);
    }
}
