//! The language model of `nano`: answers and captions from the captioning Q-Former's tokens.
//!
//! A small model does not find the way from a word of the question over the picture's token of
//! that thing to an answer two tokens later by itself. So answers are first taught at the asked
//! word itself ("what color is the car" -> "red"), then in the form in which people ask.

use candle_core::{DType, Module, Result as TensorResult, Tensor};

use super::{heads::HeadSpec, pictures::Pictures, set, words::Said};
use crate::{
    model::{
        config::Config,
        eva_vit::EvaVit,
        import::random::Random,
        phi::Phi,
        projection::Projection,
        prompt::{END_OF_ANSWER, PhiTokenizer, PromptIds, Template},
        qformer::QFormer,
        weights::Weights,
    },
    train::{
        Peft, Result, ShardLoss, Task, TrainError,
        objectives::{Answers, Example, answers},
        scenes::{CaptionPlan, Question, QuestionKind, Scene, Split, dialogue, drills, questions},
    },
    vlm::Turn,
};

/// Prefix of the heads.
pub const HEADS: &str = "auxiliary.captioner";
/// What a caption is asked with; see [`crate::model::tinygptv`].
const CAPTION: &str = "[caption] Briefly describe this image.";
/// What a statement is judged with.
const STATEMENT: &str = "[vqa] Based on the image, is this statement true or false?";
/// Weight of set prediction, where the Q-Former goes on learning.
const SET: f64 = 0.3;

/// The heads of a captioning Q-Former of width `hidden` that goes on learning.
pub fn heads(hidden: usize) -> Vec<HeadSpec> {
    set::heads(HEADS, hidden)
}

/// What a stage of the language model dwells on.
#[derive(Debug, Clone, Copy)]
pub struct Diet {
    /// Part of the questions that are asked in the short form, 0 to 1.
    pub short: f64,
    /// Questions of a picture.
    pub questions: usize,
    /// Statements that are judged beside the questions, 1 at least; none without questions.
    pub statements: u64,
    /// How many times as often relations, statements and matches are asked than other questions.
    pub hard: u64,
    /// Exercises of a picture, see [`drills`].
    pub drills: usize,
    /// Whether conversations are taught as well.
    pub dialogues: bool,
    /// Whether captions say everything in varied wording, and not what is asked for in one form.
    pub long_captions: bool,
}

impl Diet {
    /// Pictures with their captions and nothing else: what stages 1 and 2 were trained on.
    pub const CAPTIONS: Self = Self {
        short: 0.0,
        questions: 0,
        statements: 1,
        hard: 1,
        drills: 0,
        dialogues: false,
        long_captions: false,
    };
}

/// Answers and captions.
#[derive(Debug)]
pub struct LanguageTask {
    /// Sizes of the model, with what `peft` adds.
    pub config: Config,
    /// What is trained beside frozen weights.
    pub peft: Peft,
    /// Its tokenizer.
    pub tokenizer: PhiTokenizer,
    /// What is taught.
    pub diet: Diet,
    /// Whether the captioning Q-Former goes on learning, with set prediction kept.
    pub queries: bool,
    /// Pictures of a shard.
    pub batch: usize,
    /// Shards of a step.
    pub shards: usize,
    /// Number of the run's first picture.
    pub first: u64,
}

/// One thing to learn.
struct Lesson {
    picture: u32,
    prompt: PromptIds,
    answer: Vec<u32>,
    /// The kind of the question; `None` for a caption or statement.
    kind: Option<QuestionKind>,
}

impl Task for LanguageTask {
    fn loss(&self, weights: &Weights, step: u64, shard: usize) -> Result<ShardLoss> {
        let start = self.first + (step * self.shards as u64 + shard as u64) * self.batch as u64;
        let pictures = Pictures::draw(Split::Train, start, self.batch);
        let (Some(vision), Some(captioner), Some(language)) =
            (&self.config.vision, &self.config.captioner, &self.config.language)
        else {
            return Err(candle_core::Error::msg("the model lacks a part").into());
        };
        let vit = EvaVit::load(vision, &weights.pp("vit"))?;
        let seen = vit.forward(&pictures.pixels(weights.device(), weights.dtype())?)?;
        let qformer = QFormer::load(captioner, vision.width, &weights.pp("captioner"))?;
        let (tokens, layers) = set::with_layers(|tap| qformer.forward_image_tapped(&seen, tap))?;

        let w = weights.pp("language");
        let phi = match self.peft.dropout(start) {
            Some(dropout) => Phi::load(language, &w)?.with_dropout(dropout),
            None => Phi::load(language, &w)?,
        };
        let projection = Projection::load(language, captioner.hidden, &w)?;
        let lessons = self.lessons(&pictures.scenes, start)?;
        let learn = |lessons: &[Lesson]| -> TensorResult<Answers> {
            let examples: Vec<Example<'_>> = lessons
                .iter()
                .map(|l| Example { picture: l.picture, prompt: &l.prompt, answer: &l.answer })
                .collect();
            answers(&phi, &projection, &tokens, &examples, None)
        };
        let captions = learn(&lessons.captions)?;
        let value = |t: &Tensor| t.to_dtype(DType::F32)?.to_scalar::<f32>();
        let mut parts = vec![
            ("caption", value(&captions.loss)?),
            ("exact%", percentage(captions.whole.iter().copied())),
        ];
        let mut total = captions.loss;
        if !lessons.questions.is_empty() {
            let (asked, statements) = (learn(&lessons.questions)?, learn(&lessons.statements)?);
            total = ((&asked.loss + total)? + (&statements.loss * 0.5)?)?;
            parts.push(("answer", value(&asked.loss)?));
            parts.push(("statement%", percentage(statements.whole.iter().copied())));
            for (name, kind) in KINDS {
                let own = lessons.questions.iter().zip(&asked.whole);
                let own: Vec<bool> = own
                    .filter(|(lesson, _)| lesson.kind == Some(kind))
                    .map(|(_, &right)| right)
                    .collect();
                if !own.is_empty() {
                    parts.push((name, percentage(own.into_iter())));
                }
            }
        }
        if !lessons.drills.is_empty() {
            let drilled = learn(&lessons.drills)?;
            total = (&drilled.loss + total)?;
            parts.push(("drill%", percentage(drilled.whole.iter().copied())));
        }
        if self.queries {
            let (set, _) = set::deep_set_loss(&weights.pp(HEADS), &layers, &pictures.scenes)?;
            total = (total + (&set.total * SET)?)?;
            parts.push(("pairs%", set.pairs));
        }
        Ok(ShardLoss { total, parts })
    }
}

/// Questions whose answers are reported.
const KINDS: [(&str, QuestionKind); 9] = [
    ("colour%", QuestionKind::Colour),
    ("exists%", QuestionKind::Exists),
    ("exists-colour%", QuestionKind::ExistsColour),
    ("count%", QuestionKind::Count),
    ("relation%", QuestionKind::Relation),
    ("true-false%", QuestionKind::TrueFalse),
    ("what%", QuestionKind::What),
    ("setting%", QuestionKind::Setting),
    ("match%", QuestionKind::Match),
];

fn percentage(right: impl Iterator<Item = bool>) -> f32 {
    let (right, all) = right.fold((0, 0), |(right, all), ok| (right + usize::from(ok), all + 1));
    100.0 * right as f32 / all.max(1) as f32
}

/// What a batch teaches.
#[derive(Default)]
struct Lessons {
    questions: Vec<Lesson>,
    captions: Vec<Lesson>,
    statements: Vec<Lesson>,
    drills: Vec<Lesson>,
}

/// A prompt that ends with the last word of `question`, so that the answer follows it at once.
fn unfinished(question: &str) -> String {
    let whole = Template::Instruct.render(&[], question);
    whole.strip_suffix(" [/INST]").unwrap_or(&whole).to_owned()
}

impl LanguageTask {
    fn lessons(&self, scenes: &[Scene], seed: u64) -> Result<Lessons> {
        let mut lessons = Lessons::default();
        for (picture, (scene, seed)) in scenes.iter().zip(seed..).enumerate() {
            let picture = picture as u32;
            let mut random = Random(seed ^ 0x51);
            let ask = |prompt: &str, answer: &str, kind| self.lesson(picture, prompt, answer, kind);
            let plan = if self.diet.long_captions {
                CaptionPlan::full(scene, seed)
            } else {
                CaptionPlan::canonical(scene)
            };
            let caption = plan.render(scene).text;
            let prompt = Template::Instruct.render(&[], CAPTION);
            lessons.captions.push(ask(&prompt, &caption, None)?);
            if self.diet.questions == 0 {
                continue;
            }

            for number in 0..self.diet.statements {
                let said = Said::about(scene, seed ^ (number << 40));
                let statement = match &said.edit {
                    Some(edit) if random.below(2) == 0 => (&edit.caption.text, "false"),
                    _ => (&said.first.text, "true"),
                };
                let prompt = format!("{STATEMENT} {}", statement.0);
                let prompt = Template::Evaluation.render(&[], &prompt);
                lessons.statements.push(ask(&prompt, statement.1, None)?);
            }

            let all = questions(scene, seed);
            for question in self.chosen(&all, &mut random) {
                let chance = (random.next() >> 40) as f64 / f64::from(1 << 24);
                let tag = if random.below(2) == 0 { "[vqa] " } else { "" };
                let prompt = match &question.short {
                    Some(short) if chance < self.diet.short => unfinished(&format!("{tag}{short}")),
                    _ => Template::Instruct.render(&[], &format!("{tag}{}", question.text)),
                };
                let kind = Some(question.kind);
                lessons.questions.push(ask(&prompt, &question.answer, kind)?);
            }
            for drill in drills(scene, seed, self.diet.drills) {
                lessons.drills.push(ask(&unfinished(&drill.text), &drill.answer, None)?);
            }
            if self.diet.dialogues {
                let turns: Vec<Turn> = dialogue(scene, seed)
                    .into_iter()
                    .map(|(question, answer)| Turn { question, answer })
                    .collect();
                if let [before @ .., last] = &turns[..] {
                    let prompt = Template::Instruct.render(before, &last.question);
                    lessons.questions.push(ask(&prompt, &last.answer, None)?);
                }
            }
        }
        Ok(lessons)
    }

    fn lesson(
        &self,
        picture: u32,
        prompt: &str,
        answer: &str,
        kind: Option<QuestionKind>,
    ) -> Result<Lesson> {
        let bad = |e| TrainError::from(candle_core::Error::wrap(e));
        let prompt = self.tokenizer.split(prompt).map_err(bad)?;
        let answer = self.tokenizer.encode(&format!("{answer}{END_OF_ANSWER}"));
        Ok(Lesson { picture, prompt, answer, kind })
    }

    /// Some of the questions, hard ones more often.
    fn chosen<'a>(&self, all: &'a [Question], random: &mut Random) -> Vec<&'a Question> {
        let weight = |question: &Question| match question.kind {
            QuestionKind::Relation | QuestionKind::TrueFalse | QuestionKind::Match => {
                self.diet.hard
            }
            _ => 1,
        };
        let mut left: Vec<&Question> = all.iter().collect();
        let mut chosen = Vec::new();
        while chosen.len() < self.diet.questions && !left.is_empty() {
            let sum: u64 = left.iter().map(|q| weight(q)).sum();
            let mut at = random.below(sum.max(1));
            let place = left.iter().position(|q| {
                let here = at < weight(q);
                at = at.saturating_sub(weight(q));
                here
            });
            chosen.push(left.swap_remove(place.unwrap_or(0)));
        }
        chosen
    }
}
