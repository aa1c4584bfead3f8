//! Image-text contrast (ITC): each picture nearest to its own text and the reverse.

use candle_core::{DType, Result, Tensor};

use super::entropy::{accuracy, cross_entropy};
use crate::model::{qformer::itc, weights::Weights};

/// Temperature that training starts with.
const INITIAL_TEMPERATURE: f64 = 0.07;

/// What [`contrastive`] gives.
#[derive(Debug, Clone)]
pub struct Contrast {
    /// Mean of both directions.
    pub loss: Tensor,
    /// Cosines `(pictures, texts)` in f32, from which no gradient comes: hard negatives are
    /// drawn from them.
    pub similarity: Tensor,
    /// Part of the pictures whose own text is nearest, 0 to 1.
    pub text_accuracy: f32,
    /// Part of the own texts whose picture is nearest, 0 to 1.
    pub picture_accuracy: f32,
}

impl Contrast {
    /// The numbers by name, for a report.
    ///
    /// # Errors
    ///
    /// When the device failed.
    pub fn parts(&self) -> Result<Vec<(&'static str, f32)>> {
        Ok(vec![
            ("itc", self.loss.to_scalar()?),
            ("itc i2t", self.text_accuracy),
            ("itc t2i", self.picture_accuracy),
        ])
    }
}

/// The learned temperature `temp` below `w` (`retrieval` in a bundle), `(1)`; 0.07 where a
/// bundle lacks it.
///
/// # Errors
///
/// When it is of another shape.
pub fn temperature(w: &Weights) -> Result<Tensor> {
    if w.contains("temp") {
        return w.get_f32(1, "temp");
    }
    Tensor::new(&[INITIAL_TEMPERATURE as f32], w.device())
}

/// Contrast of pictures with texts in one batch.
///
/// `image_features` is `(pictures, queries, n)`, `text_features` `(texts, n)`, of unit length.
/// Text `i` belongs to picture `i`; texts beyond the last picture belong to none and only make
/// the choice of each picture harder. A pair's similarity is the greatest cosine over the
/// queries, divided by `temperature` `(1)`.
///
/// # Errors
///
/// When there are fewer texts than pictures or the shapes do not fit.
pub fn contrastive(
    image_features: &Tensor,
    text_features: &Tensor,
    temperature: &Tensor,
    smoothing: f64,
) -> Result<Contrast> {
    let similarity = itc(image_features, text_features)?.to_dtype(DType::F32)?;
    let (pictures, texts) = similarity.dims2()?;
    if texts < pictures {
        candle_core::bail!("{texts} texts for {pictures} pictures");
    }
    let own: Vec<u32> = (0..pictures as u32).collect();
    let to_texts = similarity.broadcast_div(&temperature.to_dtype(DType::F32)?)?;
    let to_pictures = to_texts.narrow(1, 0, pictures)?.t()?.contiguous()?;
    let loss = (cross_entropy(&to_texts, &own, smoothing)?
        + cross_entropy(&to_pictures, &own, smoothing)?)?;
    Ok(Contrast {
        loss: (loss / 2.0)?,
        text_accuracy: accuracy(&to_texts, &own)?,
        picture_accuracy: accuracy(&to_pictures, &own)?,
        similarity: similarity.detach(),
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn features() -> (Tensor, Tensor) {
        let image = [[[1.0_f32, 0.0], [0.6, 0.8]], [[0.0, 1.0], [0.0, -1.0]]];
        let text = [[0.8_f32, 0.6], [0.0, -1.0], [-1.0, 0.0]];
        let new = |xs: Result<Tensor>| xs.unwrap();
        (new(Tensor::new(&image, &Device::Cpu)), new(Tensor::new(&text, &Device::Cpu)))
    }

    fn temperature_of(value: f32) -> Tensor {
        Tensor::new(&[value], &Device::Cpu).unwrap()
    }

    #[test]
    fn the_loss_is_that_of_the_formula() {
        let (image, text) = features();
        let made = contrastive(&image, &text, &temperature_of(0.5), 0.0).unwrap();
        // Greatest cosines over the queries.
        let expected = [[0.96_f64, 0.0, -0.6], [0.6, 1.0, 0.0]];
        for (got, expected) in made.similarity.to_vec2::<f32>().unwrap().iter().zip(expected) {
            for (got, expected) in got.iter().zip(expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-6);
            }
        }
        let entropy = |row: &[f64], own: usize| {
            row.iter().map(|x| (x / 0.5).exp()).sum::<f64>().ln() - row[own] / 0.5
        };
        let i2t = f64::midpoint(entropy(&expected[0], 0), entropy(&expected[1], 1));
        let t2i = f64::midpoint(entropy(&[0.96, 0.6], 0), entropy(&[0.0, 1.0], 1));
        let loss = f64::from(made.loss.to_scalar::<f32>().unwrap());
        assert!((loss - f64::midpoint(i2t, t2i)).abs() < 1e-6);
        assert_eq!((made.text_accuracy, made.picture_accuracy), (1.0, 1.0));
    }

    #[test]
    fn an_extra_text_makes_only_the_pictures_choice_harder() {
        let (image, text) = features();
        let loss = |texts: usize| {
            let text = text.narrow(0, 0, texts).unwrap();
            let made = contrastive(&image, &text, &temperature_of(0.07), 0.0).unwrap();
            made.loss.to_scalar::<f32>().unwrap()
        };
        assert!(loss(3) > loss(2));
        assert!(
            contrastive(&image, &text.narrow(0, 0, 1).unwrap(), &temperature_of(0.07), 0.0)
                .is_err()
        );
    }

    #[test]
    fn the_temperature_is_learned() {
        let (image, text) = features();
        let temperature = Var::new(&[0.07_f32], &Device::Cpu).unwrap();
        let loss =
            |temperature: &Tensor| contrastive(&image, &text, temperature, 0.1).unwrap().loss;
        let gradients = loss(temperature.as_tensor()).backward().unwrap();
        let gradient = gradients.get(&temperature).unwrap().to_vec1::<f32>().unwrap()[0];
        let value = |t: f32| loss(&temperature_of(t)).to_scalar::<f32>().unwrap();
        let difference = (value(0.075) - value(0.065)) / 0.01;
        assert!((gradient - difference).abs() < 0.02 * difference.abs(), "{gradient} {difference}");
    }
}
