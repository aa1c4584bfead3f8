//! Teacher forcing: how well options fit a prompt.

use candle_core::{Result, Tensor};

use super::Phi;
use crate::model::generate::cross_entropy;

impl Phi {
    /// For each of `options`, token ids, its mean cross-entropy in nats after `prompt`, embeddings
    /// `(tokens, hidden)`: the training loss, by which the reference ranks the options of a
    /// question, the least first. It trained with `<|endoftext|>` before the prompt and an end
    /// symbol behind the option; both are the caller's to add.
    ///
    /// The prompt is run once, the options as one batch behind it.
    ///
    /// # Errors
    ///
    /// When the prompt or an option is empty, or both are longer than the model can read.
    pub fn option_losses(&self, prompt: &Tensor, options: &[Vec<u32>]) -> Result<Vec<f32>> {
        let tokens = prompt.dim(0)?;
        if tokens == 0 || options.iter().any(Vec::is_empty) {
            candle_core::bail!("a loss needs a prompt and a token");
        }
        if options.is_empty() {
            return Ok(Vec::new());
        }
        let mut cache = self.cache(&[0]);
        let xs = self.forward(&prompt.unsqueeze(0)?, &mut cache)?;
        let first = xs.narrow(1, tokens - 1, 1)?; // foretells the first token of every option
        let first = first.repeat((options.len(), 1, 1))?;
        let fed = options.iter().map(|ids| ids.len() - 1).max().unwrap_or(0);
        let hidden = if fed == 0 {
            first
        } else {
            // Shorter options are padded behind their end, where nobody looks back from.
            let padded: Vec<u32> = options
                .iter()
                .flat_map(|ids| {
                    ids[..ids.len() - 1].iter().copied().chain(std::iter::repeat(0)).take(fed)
                })
                .collect();
            let embeds = self.embed(&padded)?.reshape((options.len(), fed, ()))?;
            let mut batch = cache.fork(&vec![0; options.len()])?;
            drop(cache);
            Tensor::cat(&[first, self.forward(&embeds, &mut batch)?], 1)?
        };
        // Logits are wide: only those of tokens are made, option by option.
        let loss = |(row, ids): (usize, &Vec<u32>)| {
            let states = hidden.narrow(0, row, 1)?.squeeze(0)?.narrow(0, 0, ids.len())?;
            Ok(cross_entropy(&self.logits(&states.contiguous()?)?.to_vec2::<f32>()?, ids))
        };
        options.iter().enumerate().map(loss).collect()
    }
}
