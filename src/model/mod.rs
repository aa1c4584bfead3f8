//! TinyGPT-V and BLIP-2 retrieval on candle.

pub mod bundle;
pub mod config;
pub mod device;
pub mod eva_vit;
pub mod generate;
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
pub mod weights;
