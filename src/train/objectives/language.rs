//! The language model's loss: an answer after a picture and a prompt, or plain text.

use candle_core::{D, Module, Result, Tensor};

use super::entropy::cross_entropy;
use crate::model::{phi::Phi, projection::Projection, prompt::PromptIds};

/// One answer to learn.
#[derive(Debug, Clone, Copy)]
pub struct Example<'a> {
    /// Which of the batch's pictures it is about.
    pub picture: u32,
    /// The prompt around the picture.
    pub prompt: &'a PromptIds,
    /// The answer's tokens, with those of the end symbol.
    pub answer: &'a [u32],
}

/// What [`answers`] and [`texts`] give.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Mean cross-entropy over all tokens that are learned.
    pub loss: Tensor,
    /// Part of those tokens that are foretold, 0 to 1.
    pub accuracy: f32,
    /// How many there are.
    pub tokens: usize,
    /// Of each example, whether all its tokens are foretold.
    pub whole: Vec<bool>,
}

impl Answers {
    /// The numbers by name, for a report.
    ///
    /// # Errors
    ///
    /// When the device failed.
    pub fn parts(&self) -> Result<Vec<(&'static str, f32)>> {
        Ok(vec![("answer", self.loss.to_scalar()?), ("answer right", self.accuracy)])
    }
}

/// How well answers are foretold, token by token; only the answer is learned, not the prompt,
/// the picture, or `bos`, which stands before them where it is given.
///
/// `tokens` are visual tokens `(pictures, queries, width)`. Where all prompts begin with the same
/// text, `bos`, that text and the picture are run once for all examples of the picture.
///
/// # Errors
///
/// When there is no example, an answer is empty, there is no such picture, or a sequence is
/// longer than the model can read.
pub fn answers(
    phi: &Phi,
    projection: &Projection,
    tokens: &Tensor,
    examples: &[Example<'_>],
    bos: Option<u32>,
) -> Result<Answers> {
    let (pictures, queries, _) = tokens.dims3()?;
    if examples.iter().any(|e| e.answer.is_empty()) {
        candle_core::bail!("an answer without tokens");
    }
    if let Some(e) = examples.iter().find(|e| e.picture as usize >= pictures) {
        candle_core::bail!("there is no picture {} among {pictures}", e.picture);
    }
    let Some(first) = examples.first() else { candle_core::bail!("no answers to learn") };
    let images = projection.forward(tokens)?;
    let left = &first.prompt.left;
    let alike = examples.iter().all(|e| e.prompt.left == *left && !e.prompt.right.is_empty());
    let mut rows: Vec<Row> = examples.iter().map(Row::new).collect();
    if !alike || examples.len() <= pictures {
        for (row, example) in rows.iter_mut().zip(examples) {
            let before = beginning(&example.prompt.left, example.picture, queries, bos);
            row.pieces.splice(0..0, before);
        }
        let (embeds, longest) = gather(phi, Some(&images), &rows)?;
        return learned(phi, &phi.forward_whole(&embeds)?, longest, &rows);
    }
    let begun: Vec<Row> = (0..pictures as u32)
        .map(|picture| Row { pieces: beginning(left, picture, queries, bos), answer: &[] })
        .collect();
    let (_, prefix) = phi.forward_prefix(&gather(phi, Some(&images), &begun)?.0)?;
    let of: Vec<u32> = examples.iter().map(|e| e.picture).collect();
    let (embeds, longest) = gather(phi, None, &rows)?;
    learned(phi, &phi.forward_after(&prefix, &of, &embeds)?, longest, &rows)
}

/// How well each token of plain texts is foretold from `bos` and the tokens before it.
///
/// # Errors
///
/// When there is no text, one is empty or longer than the model can read.
pub fn texts(phi: &Phi, ids: &[Vec<u32>], bos: u32) -> Result<Answers> {
    if ids.is_empty() || ids.iter().any(Vec::is_empty) {
        candle_core::bail!("a text without tokens");
    }
    let rows: Vec<Row> =
        ids.iter().map(|ids| Row { pieces: vec![Piece::Word(bos)], answer: ids }).collect();
    let (embeds, longest) = gather(phi, None, &rows)?;
    learned(phi, &phi.forward_whole(&embeds)?, longest, &rows)
}

/// One place of a sequence.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// A token.
    Word(u32),
    /// A row of all pictures' projected tokens.
    Image(u32),
}

/// One sequence: what is only read, then what is learned.
#[derive(Debug)]
struct Row<'a> {
    pieces: Vec<Piece>,
    answer: &'a [u32],
}

impl<'a> Row<'a> {
    /// What stands after the picture.
    fn new(example: &Example<'a>) -> Self {
        let pieces = example.prompt.right.iter().map(|&id| Piece::Word(id)).collect();
        Self { pieces, answer: example.answer }
    }

    /// Places that are fed: the last token of an answer foretells nothing that is learned.
    fn len(&self) -> usize {
        self.pieces.len() + self.answer.len().saturating_sub(1)
    }
}

/// What stands up to the picture and the picture.
fn beginning(left: &[u32], picture: u32, queries: usize, bos: Option<u32>) -> Vec<Piece> {
    let words = bos.into_iter().chain(left.iter().copied()).map(Piece::Word);
    let first = picture * queries as u32;
    words.chain((first..first + queries as u32).map(Piece::Image)).collect()
}

/// Embeddings `(rows, longest, hidden)` and how long the longest is; shorter rows are padded on
/// the right.
fn gather(phi: &Phi, images: Option<&Tensor>, rows: &[Row<'_>]) -> Result<(Tensor, usize)> {
    let longest = rows.iter().map(Row::len).max().unwrap_or(0);
    let images = images.map(|images| images.flatten(0, 1)).transpose()?;
    let before = images.as_ref().map_or(Ok(0), |images| images.dim(0))? as u32;
    let mut words = Vec::new();
    let mut places = Vec::with_capacity(rows.len() * longest);
    for row in rows {
        let mut word = |id: u32| {
            words.push(id);
            before + words.len() as u32 - 1
        };
        let from = places.len();
        places.extend(row.pieces.iter().map(|piece| match *piece {
            Piece::Word(id) => word(id),
            Piece::Image(at) => at,
        }));
        let fed = row.answer.len().saturating_sub(1);
        places.extend(row.answer[..fed].iter().map(|&id| word(id)));
        // Nobody looks ahead, so anything will do.
        places.resize(from + longest, 0);
    }
    let words = phi.embed(&words)?;
    let all = match images {
        Some(images) => Tensor::cat(&[&images, &words], 0)?,
        None => words,
    };
    let embeds = all.index_select(&Tensor::new(places, all.device())?, 0)?;
    Ok((embeds.reshape((rows.len(), longest, ()))?, longest))
}

/// The loss of the rows' answers, of states `(rows, longest, hidden)`. Logits are wide: only
/// those of learned tokens are made.
fn learned(phi: &Phi, states: &Tensor, longest: usize, rows: &[Row<'_>]) -> Result<Answers> {
    let mut places = Vec::new();
    let mut targets = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        // The place before an answer foretells its first token.
        let first = (at * longest + row.pieces.len() - 1) as u32;
        places.extend(first..first + row.answer.len() as u32);
        targets.extend_from_slice(row.answer);
    }
    let states = states.flatten(0, 1)?;
    let states = states.index_select(&Tensor::new(places, states.device())?, 0)?;
    let logits = phi.logits(&states)?;
    let best = logits.detach().argmax(D::Minus1)?.to_vec1::<u32>()?;
    let mut at = 0;
    let whole = rows.iter().map(|row| {
        let own = at..at + row.answer.len();
        at = own.end;
        best[own.clone()] == targets[own]
    });
    let whole = whole.collect();
    let right = best.iter().zip(&targets).filter(|(best, target)| best == target).count();
    Ok(Answers {
        loss: cross_entropy(&logits, &targets, 0.0)?,
        accuracy: right as f32 / targets.len() as f32,
        tokens: targets.len(),
        whole,
    })
}
