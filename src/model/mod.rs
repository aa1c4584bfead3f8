//! TinyGPT-V and BLIP-2 retrieval on candle.
//!
//! ```text
//! picture -> bicubic resize to S x S (Pillow's, aspect lost) -> CLIP mean and deviation     pixels
//!  -> EVA ViT-g/14: 39 blocks of width 1408, all tokens kept         (B, 1 + (S/14)^2, 1408) eva_vit
//!  -> ln_vision -> Q-Former: 12 layers, 32 queries, looks at the picture in even layers
//!       captioning side: visual tokens (B, 32, 768)                                          qformer
//!       retrieval side:  vision_proj, unit length: (B, 32, 256); text side (N, 256); ITC, ITM
//!  -> llama_proj 768 -> 4096, llama_proj2 4096 -> 2560, nothing between   (B, 32, 2560)   projection
//!  -> between the embedded text left and right of the picture                                prompt
//!  -> Phi-2 with three extra norms a layer and LoRA -> logits (B, 51200)                        phi
//! ```
//!
//! S is 224 for stages 1 to 3 and for retrieval, 448 for stage 4. At 224 one ViT pass feeds both
//! Q-Formers, each through its own `ln_vision`.
//!
//! # What is easy to get wrong
//!
//! - ViT: `qkv` has no bias of its own; q and v have one, k has none. GELU is the erf form. 39 of
//!   the file's 40 blocks are used, without final norm. For 448 px the position table is resized
//!   16 x 16 -> 32 x 32 by a bicubic with A = -0.75 and no antialias (the picture's own resize
//!   has A = -0.5 with antialias).
//! - Epsilons: ViT 1e-6, `ln_vision` 1e-5 (1e-6 in the Hugging Face copy), Q-Former 1e-12,
//!   Phi-2 1e-5, its RMS norm 1e-6.
//! - Phi-2: q and k pass a layer norm over the head before rotary; rotary turns the first
//!   `int(0.4 * 80) = 32` dimensions, with tables rounded to f16 as the reference holds them; an
//!   RMS norm follows the attention branch only; the MLP reads the same normed input; GELU is the
//!   tanh form. `query_key_value` is fused per head: rows `[head][q|k|v][80]`.
//! - Inference adds no BOS; the training loss (also used to rank options) does.
//!
//! # Sources
//!
//! TinyGPT-V (Yuan et al., 2023; repository `DLYuanGod/TinyGPT-V`), BLIP-2 (Li et al., 2023;
//! LAVIS and Hugging Face `Blip2ForImageTextRetrieval`), EVA-CLIP (Sun et al., 2023), Phi-2
//! (Microsoft, 2023), LoRA (Hu et al., 2021). `tests/parity.rs` compares every part with
//! activations of those implementations.

pub mod bundle;
pub mod config;
pub mod device;
pub mod eva_vit;
pub mod generate;
pub(crate) mod gguf;
#[cfg(test)]
pub(crate) mod gradcheck;
pub mod hub;
pub mod import;
pub mod kernels;
pub mod layers;
pub mod phi;
pub mod pixels;
pub mod projection;
pub mod prompt;
pub mod qformer;
pub mod registry;
pub mod tinygptv;
pub mod weights;

pub use tinygptv::TinyGptV;
