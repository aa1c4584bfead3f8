//! The retrieval Q-Former as training uses it: passes that share what they have in common.
//!
//! The three losses of BLIP-2's first stage look at the same pictures: the queries alone (ITC),
//! queries with texts of which some are wrong (ITM), texts behind queries (ITG). Keys and values
//! of the pictures are the same in all of them and are made once. Source: LAVIS
//! `blip2_qformer.py` and `Qformer.py`.

use candle_core::{Module, Result, Tensor};

use super::{
    RetrievalQFormer,
    stack::{KeysValues, Pass, Pictures},
};
use crate::model::{kernels::Visible, layers::Tap};

/// Pictures as the layers of a [`RetrievalQFormer`] see them.
#[derive(Debug, Clone)]
pub struct Seen {
    pictures: usize,
    layers: Vec<Option<KeysValues>>,
}

impl Seen {
    /// How many pictures.
    pub fn pictures(&self) -> usize {
        self.pictures
    }
}

/// The queries of some pictures, with what a text behind them sees of them.
#[derive(Debug, Clone)]
pub struct Queries {
    /// Last hidden states `(pictures, queries, hidden)`, for [`RetrievalQFormer::project`].
    pub hidden: Tensor,
    layers: Vec<KeysValues>,
}

/// Pictures and texts seen together.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Logits `(pairs, 2)` for no match and match, the mean over the queries.
    pub logits: Tensor,
    /// Last hidden states of the queries, `(pairs, queries, hidden)`.
    pub queries: Tensor,
    /// Last hidden states of the texts, `(pairs, longest, hidden)`; those behind the end of a
    /// shorter text mean nothing.
    pub text: Tensor,
}

impl RetrievalQFormer {
    /// Looks at pictures, ViT tokens `(pictures, tokens, encoder_width)`, once for all passes.
    ///
    /// # Errors
    ///
    /// When the ViT tokens are of another width.
    pub fn see(&self, vit: &Tensor) -> Result<Seen> {
        let encoded = self.image.norm.forward(vit)?;
        Ok(Seen { pictures: vit.dim(0)?, layers: self.text.stack.see(&encoded)? })
    }

    /// The queries alone: what [`RetrievalQFormer::forward_image_tapped`] gives, with their keys
    /// and values kept.
    ///
    /// # Errors
    ///
    /// When the device has no room.
    pub fn query(&self, seen: &Seen) -> Result<Queries> {
        self.query_tapped(seen, &mut Tap::none())
    }

    /// [`RetrievalQFormer::query`], showing the states `qformer.layer{i}` to `tap`.
    ///
    /// # Errors
    ///
    /// As [`RetrievalQFormer::query`].
    pub fn query_tapped(&self, seen: &Seen, tap: &mut Tap<'_>) -> Result<Queries> {
        let tokens = self.image.query_tokens.repeat((seen.pictures, 1, 1))?;
        let pictures = Pictures::Seen(&seen.layers);
        let pass = Pass { queries: self.image.queries()?, pictures, ..Pass::default() };
        let mut layers = Vec::new();
        let hidden = self.text.stack.forward_keeping(&tokens, pass, &mut layers, tap)?;
        Ok(Queries { hidden, layers })
    }

    /// Picture `pictures[i]` of `seen` with the text `ids[i]`, as [`RetrievalQFormer::itm`].
    ///
    /// # Errors
    ///
    /// When there are not as many pictures as texts, there is no such picture, or a text is
    /// empty or too long.
    pub fn pairs(&self, seen: &Seen, pictures: &[u32], ids: &[Vec<u32>]) -> Result<Pairs> {
        self.pairs_tapped(seen, pictures, ids, &mut Tap::none())
    }

    /// [`RetrievalQFormer::pairs`], showing the states `qformer.layer{i}` of the queries and,
    /// behind them, of the text to `tap`.
    ///
    /// # Errors
    ///
    /// As [`RetrievalQFormer::pairs`].
    pub fn pairs_tapped(
        &self,
        seen: &Seen,
        pictures: &[u32],
        ids: &[Vec<u32>],
        tap: &mut Tap<'_>,
    ) -> Result<Pairs> {
        let rows = rows(seen.pictures, pictures, ids.len(), &self.image.query_tokens)?;
        let selected: Vec<Option<KeysValues>>;
        let layers = match rows {
            None => &seen.layers,
            Some(rows) => {
                let select = |layer: &Option<KeysValues>| {
                    layer.as_ref().map(|layer| layer.select(&rows)).transpose()
                };
                selected = seen.layers.iter().map(select).collect::<Result<_>>()?;
                &selected
            }
        };
        let xs = self.joint(Pictures::Seen(layers), ids, tap)?;
        let n = self.image.queries()?;
        let (queries, text) = (xs.narrow(1, 0, n)?, xs.narrow(1, n, xs.dim(1)? - n)?);
        Ok(Pairs { logits: self.matched(&queries)?, queries, text })
    }

    /// Last hidden states `(texts, longest, hidden)` of texts that are read from left to right
    /// behind the queries of picture `pictures[i]`: each word sees all queries and the words
    /// before it. The queries do not see the text; shorter texts are padded on the right, where
    /// the states mean nothing.
    ///
    /// # Errors
    ///
    /// As [`RetrievalQFormer::pairs`].
    pub fn read(&self, queries: &Queries, pictures: &[u32], ids: &[Vec<u32>]) -> Result<Tensor> {
        let of = queries.hidden.dim(0)?;
        let selected: Vec<KeysValues>;
        let before = match rows(of, pictures, ids.len(), &queries.hidden)? {
            None => &queries.layers,
            Some(rows) => {
                let layers = queries.layers.iter().map(|layer| layer.select(&rows));
                selected = layers.collect::<Result<_>>()?;
                &selected
            }
        };
        let visible = Visible { causal: true, hidden: None };
        let pass = Pass { visible, before: Some(before), ..Pass::default() };
        self.text.stack.forward(&self.text.embed(ids)?, pass, &mut Tap::none())
    }
}

/// `pictures` as a tensor beside `like`; `None` where they are all of `of`, in order.
fn rows(of: usize, pictures: &[u32], texts: usize, like: &Tensor) -> Result<Option<Tensor>> {
    if pictures.len() != texts || pictures.iter().any(|&picture| picture as usize >= of) {
        candle_core::bail!("pictures {pictures:?} of {of} for {texts} texts");
    }
    if pictures.len() == of && pictures.iter().copied().eq(0..of as u32) {
        return Ok(None);
    }
    Tensor::new(pictures, like.device()).map(Some)
}

#[cfg(test)]
mod tests {
    use candle_core::IndexOp;

    use super::{
        super::tests::{off, vit, weights},
        *,
    };

    fn qformer() -> RetrievalQFormer {
        let (config, w) = weights();
        RetrievalQFormer::load(&config, 48, &w).unwrap()
    }

    #[test]
    fn shared_passes_give_what_single_ones_give() {
        let (qformer, pictures) = (qformer(), vit(3));
        let seen = qformer.see(&pictures).unwrap();
        assert_eq!(seen.pictures(), 3);
        let queries = qformer.query(&seen).unwrap();
        let features = qformer.project(&queries.hidden).unwrap();
        assert!(off(&features, &qformer.image_features(&pictures).unwrap()) < 1e-6);

        let texts = [vec![2, 5, 3], vec![2, 9, 8, 7, 40, 3], vec![2, 3], vec![2, 5, 3]];
        let of = [2, 0, 0, 1];
        let pairs = qformer.pairs(&seen, &of, &texts).unwrap();
        assert_eq!((pairs.queries.dims(), pairs.text.dims()), (&[4, 32, 32][..], &[4, 6, 32][..]));
        for (row, (picture, text)) in of.iter().zip(&texts).enumerate() {
            let picture = pictures.narrow(0, *picture as usize, 1).unwrap();
            let alone = qformer.itm(&picture, std::slice::from_ref(text)).unwrap();
            assert!(off(&pairs.logits.i(row..=row).unwrap(), &alone) < 1e-5);
        }
        let same = qformer.pairs(&seen, &[0, 1, 2], &texts[..3]).unwrap();
        assert!(off(&same.logits, &qformer.itm(&pictures, &texts[..3]).unwrap()) < 1e-5);
    }

    #[test]
    fn a_word_sees_the_queries_and_the_words_before_it() {
        let qformer = qformer();
        let queries = qformer.query(&qformer.see(&vit(2)).unwrap()).unwrap();
        let read = |picture: u32, ids: &[u32]| {
            qformer.read(&queries, &[picture], &[ids.to_vec()]).unwrap().squeeze(0).unwrap()
        };
        let first = read(0, &[101, 5, 6, 7]);
        let last_changed = read(0, &[101, 5, 6, 50]);
        assert!(off(&first.i(..3).unwrap(), &last_changed.i(..3).unwrap()) < 1e-6);
        assert!(off(&first.i(3).unwrap(), &last_changed.i(3).unwrap()) > 1e-3);
        let second_changed = read(0, &[101, 60, 6, 7]);
        for at in 1..4 {
            assert!(off(&first.i(at).unwrap(), &second_changed.i(at).unwrap()) > 1e-4, "{at}");
        }
        let other_picture = read(1, &[101, 5, 6, 7]);
        for at in 0..4 {
            assert!(off(&first.i(at).unwrap(), &other_picture.i(at).unwrap()) > 1e-6, "{at}");
        }
        // Beside a longer text, and for every picture in order.
        let texts = [vec![101, 5, 6, 7], vec![101, 9, 9, 9, 9, 9]];
        let both = qformer.read(&queries, &[0, 1], &texts).unwrap();
        assert!(off(&both.i((0, ..4)).unwrap(), &first) < 1e-6);
    }

    #[test]
    fn pictures_that_are_not_there_are_refused() {
        let qformer = qformer();
        let seen = qformer.see(&vit(2)).unwrap();
        let texts = [vec![2, 3]];
        assert!(qformer.pairs(&seen, &[2], &texts).is_err());
        assert!(qformer.pairs(&seen, &[0, 1], &texts).is_err());
        let queries = qformer.query(&seen).unwrap();
        assert!(qformer.read(&queries, &[5], &texts).is_err());
    }
}
