//! EVA ViT-g: pixels to the tokens that both Q-Formers look at.
//!
//! Source: LAVIS `eva_vit.py`, classes `VisionTransformer`, `Block`, `Attention`, `Mlp`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use candle_core::{D, DType, Device, Module, Result, Tensor};
use rayon::prelude::*;

use crate::model::{
    config::VisionConfig,
    kernels::{Activation, Packing, Visible, self_attention},
    layers::{LayerNorm, Linear, Tap},
    weights::Weights,
};

/// The vision transformer, without a final norm or head.
#[derive(Debug)]
pub struct EvaVit {
    config: VisionConfig,
    patch_embed: Linear,
    /// `(1, 1, width)`.
    cls_token: Tensor,
    /// `(1, 1 + trained patches, width)`, f32 on the CPU.
    trained_positions: Tensor,
    /// Position tables by the side of the picture, made when first wanted.
    positions: Mutex<BTreeMap<usize, Tensor>>,
    blocks: Vec<Block>,
    device: Device,
    dtype: DType,
}

impl EvaVit {
    /// Reads `cls_token`, `pos_embed`, `patch_embed.*` and `blocks.*` below `w` (`vit` in a
    /// bundle).
    ///
    /// # Errors
    ///
    /// When a tensor is missing or of another shape.
    pub fn load(config: &VisionConfig, w: &Weights) -> Result<Self> {
        let width = config.width;
        let tokens = config.tokens(config.train_size);
        let blocks = w.pp("blocks");
        Ok(Self {
            config: config.clone(),
            patch_embed: Linear::load(
                &w.pp("patch_embed.proj"),
                3 * config.patch * config.patch,
                width,
            )?,
            cls_token: w.get((1, 1, width), "cls_token")?,
            trained_positions: w
                .get_f32((1, tokens, width), "pos_embed")?
                .to_device(&Device::Cpu)?,
            positions: Mutex::default(),
            blocks: (0..config.depth)
                .into_par_iter()
                .map(|i| Block::load(config, &blocks.pp(i)))
                .collect::<Result<_>>()?,
            device: w.device().clone(),
            dtype: w.dtype(),
        })
    }

    /// As [`Module::forward`], showing what lies between: `vit.patch_embed`, `vit.embed`,
    /// `vit.block0.{norm1,attn,mlp}` and so on, `vit.block0` and so on, `vit.out`.
    ///
    /// # Errors
    ///
    /// When the pictures are not square or no whole number of patches wide.
    pub fn forward_tapped(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let (batch, _, size, _) = pixels.dims4()?;
        let patches = self.patch_embed.forward(&self.unfold(pixels)?)?;
        tap.see("vit.patch_embed", &patches);
        let cls = self.cls_token.broadcast_as((batch, 1, self.config.width))?.contiguous()?;
        let positions = self.positions(size)?;
        let mut xs = Tensor::cat(&[&cls, &patches], 1)?.broadcast_add(&positions)?;
        tap.see("vit.embed", &xs);
        for (i, block) in self.blocks.iter().enumerate() {
            xs = block.forward(&xs, i, tap)?;
            tap.see(format_args!("vit.block{i}"), &xs);
        }
        tap.see("vit.out", &xs);
        Ok(xs)
    }

    /// `(batch, 3, S, S)` to `(batch, patches, 3 * patch * patch)`, patches row by row, each as
    /// a kernel of the convolution sees it: channel, row, column.
    fn unfold(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = pixels.dims4()?;
        let patch = self.config.patch;
        if channels != 3 || height != width || height == 0 || height % patch != 0 {
            candle_core::bail!(
                "the ViT takes (batch, 3, S, S) with S a multiple of {patch}, not {:?}",
                pixels.dims()
            );
        }
        let side = height / patch;
        pixels
            .reshape(&[batch, 3, side, patch, side, patch][..])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((batch, side * side, 3 * patch * patch))
    }

    /// Position table for pictures of `size` pixels: `(1, 1 + (size / patch)^2, width)`.
    ///
    /// The trained table is resized where `size` is another than it was trained for.
    ///
    /// # Errors
    ///
    /// When the device has no room.
    pub fn positions(&self, size: usize) -> Result<Tensor> {
        let mut known = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(positions) = known.get(&size) {
            return Ok(positions.clone());
        }
        let (from, to) = (self.config.train_size / self.config.patch, size / self.config.patch);
        let positions = resize_positions(&self.trained_positions, from, to)?
            .to_device(&self.device)?
            .to_dtype(self.dtype)?;
        known.insert(size, positions.clone());
        Ok(positions)
    }
}

impl Module for EvaVit {
    /// Pixel values `(batch, 3, S, S)` to `(batch, 1 + (S / patch)^2, width)`, class token first.
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        self.forward_tapped(pixels, &mut Tap::none())
    }
}

/// Resizes a table of `1 + from * from` positions to `1 + to * to`; the first row stays.
///
/// Cubic convolution with A = -0.75, borders repeated, corners not aligned, no antialias: torch's
/// `interpolate(mode="bicubic", align_corners=False)`.
fn resize_positions(table: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    if from == to {
        return Ok(table.clone());
    }
    let rows = table.squeeze(0)?.to_vec2::<f32>()?;
    let width = table.dim(D::Minus1)?;
    let taps: Vec<[(usize, f32); 4]> = (0..to).map(|i| cubic_taps(i, from, to)).collect();
    let mut out = Vec::with_capacity((1 + to * to) * width);
    out.extend_from_slice(&rows[0]);
    for down in &taps {
        for across in &taps {
            let start = out.len();
            out.resize(start + width, 0.0);
            let mixed = &mut out[start..];
            for (y, by_row) in down {
                for (x, by_column) in across {
                    let weight = by_row * by_column;
                    for (out, value) in mixed.iter_mut().zip(&rows[1 + y * from + x]) {
                        *out += weight * value;
                    }
                }
            }
        }
    }
    Tensor::from_vec(out, (1, 1 + to * to, width), &Device::Cpu)
}

/// The four places of the old grid, with their weights, that place `i` of the new one mixes.
fn cubic_taps(i: usize, from: usize, to: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let at = (i as f32 + 0.5) * (from as f32 / to as f32) - 0.5;
    let t = at - at.floor();
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let first = at.floor() as i64 - 1;
    std::array::from_fn(|k| {
        let place = (first + k as i64).clamp(0, from as i64 - 1);
        (place as usize, weights[k])
    })
}

/// One block: attention and MLP, each behind a norm and beside the residual.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn load(config: &VisionConfig, w: &Weights) -> Result<Self> {
        let norm = |name| LayerNorm::load(&w.pp(name), config.width, config.eps);
        Ok(Self {
            norm1: norm("norm1")?,
            attention: Attention::load(config, &w.pp("attn"))?,
            norm2: norm("norm2")?,
            mlp: Mlp::load(config, &w.pp("mlp"))?,
        })
    }

    /// `(batch, tokens, width)` to the same shape.
    fn forward(&self, xs: &Tensor, i: usize, tap: &mut Tap<'_>) -> Result<Tensor> {
        let normed = self.norm1.forward(xs)?;
        tap.see(format_args!("vit.block{i}.norm1"), &normed);
        let attended = self.attention.forward(&normed)?;
        tap.see(format_args!("vit.block{i}.attn"), &attended);
        let xs = (xs + attended)?;
        let mlp = self.mlp.forward(&self.norm2.forward(&xs)?)?;
        tap.see(format_args!("vit.block{i}.mlp"), &mlp);
        xs + mlp
    }
}

/// Self-attention of one [`Block`]; keys have no bias.
#[derive(Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
    scale: f64,
}

impl Attention {
    fn load(config: &VisionConfig, w: &Weights) -> Result<Self> {
        let width = config.width;
        let (q_bias, v_bias) = (w.get(width, "q_bias")?, w.get(width, "v_bias")?);
        let bias = Tensor::cat(&[&q_bias, &q_bias.zeros_like()?, &v_bias], 0)?;
        Ok(Self {
            qkv: Linear::load_with_bias(&w.pp("qkv"), width, 3 * width, Some(bias))?,
            proj: Linear::load(&w.pp("proj"), width, width)?,
            heads: config.heads,
            scale: (config.head_dim() as f64).powf(-0.5),
        })
    }
}

impl Module for Attention {
    /// `(batch, tokens, width)` to the same shape.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (batch, tokens, width) = xs.dims3()?;
        let qkv =
            self.qkv.forward(xs)?.reshape((batch, tokens, 3, self.heads, width / self.heads))?;
        let mixed = self_attention(&qkv, Packing::Tokens, self.scale, Visible::default())?;
        self.proj.forward(&mixed)
    }
}

/// The two layers of one [`Block`] with an erf GELU between.
#[derive(Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn load(config: &VisionConfig, w: &Weights) -> Result<Self> {
        Ok(Self {
            fc1: Linear::load(&w.pp("fc1"), config.width, config.mlp)?,
            fc2: Linear::load(&w.pp("fc2"), config.mlp, config.width)?,
        })
    }
}

impl Module for Mlp {
    /// `(batch, tokens, width)` to the same shape.
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.fc2.forward(&self.fc1.forward_then(xs, Activation::GeluErf)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        bundle::{Bundle, WeightType, tests::small_config},
        import::random::{Tokenizers, write_random},
    };

    fn vit(weight_type: WeightType) -> EvaVit {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.gguf");
        write_random(&small_config(), weight_type, 3, &path, Tokenizers::default()).unwrap();
        let bundle = Bundle::open(&path).unwrap();
        let config = bundle.config().vision.clone().unwrap();
        EvaVit::load(&config, &bundle.weights(&Device::Cpu, DType::F32).pp("vit")).unwrap()
    }

    fn pixels(batch: usize, size: usize) -> Tensor {
        let values = (0..batch * 3 * size * size).map(|i| (i as f32 * 0.731).sin());
        Tensor::from_iter(values, &Device::Cpu).unwrap().reshape((batch, 3, size, size)).unwrap()
    }

    fn off(left: &Tensor, right: &Tensor) -> f32 {
        let difference = (left - right).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar::<f32>().unwrap()
    }

    #[test]
    fn one_model_takes_pictures_of_several_sizes() {
        let vit = vit(WeightType::F32);
        assert_eq!(vit.forward(&pixels(1, 224)).unwrap().dims(), [1, 257, 48]);
        assert_eq!(vit.forward(&pixels(1, 448)).unwrap().dims(), [1, 1025, 48]);
        assert!(vit.forward(&pixels(1, 220)).is_err());
    }

    #[test]
    fn pictures_in_a_batch_give_what_they_give_alone() {
        for weight_type in [WeightType::F32, WeightType::F16, WeightType::Q8_0] {
            let vit = vit(weight_type);
            let pixels = pixels(3, 56);
            let together = vit.forward(&pixels).unwrap();
            for row in 0..3 {
                let alone = vit.forward(&pixels.narrow(0, row, 1).unwrap()).unwrap();
                assert!(off(&together.narrow(0, row, 1).unwrap(), &alone) < 1e-4);
            }
        }
    }

    #[test]
    fn resizing_keeps_the_class_row_and_a_flat_table_flat() {
        let table: Vec<f32> = (0..17).map(|row| if row == 0 { 7.0 } else { 3.0 }).collect();
        let table = Tensor::from_vec(table, (1, 17, 1), &Device::Cpu).unwrap();
        let resized = resize_positions(&table, 4, 7).unwrap();
        let values = resized.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values.len(), 50);
        assert!((values[0] - 7.0).abs() < 1e-6);
        assert!(values[1..].iter().all(|v| (v - 3.0).abs() < 1e-5));
    }

    #[test]
    fn a_quarter_step_has_the_weights_of_the_cubic_kernel_by_hand() {
        // The place 0.25: its neighbour -1 lies outside and is the border's again.
        let expected =
            [(0, -0.105_468_75), (0, 0.878_906_25), (1, 0.261_718_75), (2, -0.035_156_25)];
        for (got, expected) in cubic_taps(1, 4, 8).into_iter().zip(expected) {
            assert!(got.0 == expected.0 && (got.1 - expected.1).abs() < f32::EPSILON, "{got:?}");
        }
    }
}
