//! Parts of the network at the published widths, one layer of each, scaled to the full depth.
//!
//!     cargo bench --bench model [-- q8_0 | f16 | q4k ...]
//!
//! Writes a bundle with two layers of each network and random weights into a temporary folder,
//! then prints CPU time, the least of several runs: it holds better than wall time on a machine
//! that does other work. Whole models and the program itself are measured by `full_size`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program that prints"
)]

use std::fs;
use std::time::Instant;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use tinyfind::model::bundle::{Bundle, WeightType};
use tinyfind::model::config::{
    Config, LanguageConfig, QFormerConfig, RetrievalConfig, VisionConfig,
};
use tinyfind::model::eva_vit::EvaVit;
use tinyfind::model::import::random::{Tokenizers, write_random};
use tinyfind::model::kernels::{Activation, Visible, attention, half_product, layer_norm};
use tinyfind::model::phi::{KvCache, Phi};
use tinyfind::model::qformer::{QFormer, RetrievalQFormer, TextTower};

/// Layers of each network in the bundle.
const LAYERS: usize = 2;
/// Tokens of a caption's prompt.
const PROMPT: usize = 67;
/// Tokens of a caption.
const CAPTION: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` builds and starts this too, without `--bench`.
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    operations();
    let mut types: Vec<WeightType> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    if types.is_empty() {
        types = vec![WeightType::F32, WeightType::F16, WeightType::Q8_0, WeightType::Q4K];
    }
    for weight_type in types {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.gguf");
        write_random(&config(), weight_type, 1, &path, Tokenizers::default()).unwrap();
        println!("\n{weight_type}: CPU milliseconds a photo, at full depth");
        let bundle = Bundle::open(&path).unwrap();
        vision(&bundle);
        language(&bundle);
    }
}

fn config() -> Config {
    let qformer = QFormerConfig { layers: LAYERS, ..QFormerConfig::blip2(224) };
    Config {
        vision: Some(VisionConfig { depth: LAYERS, ..VisionConfig::vit_g() }),
        captioner: Some(qformer.clone()),
        retrieval: Some(RetrievalConfig {
            qformer,
            vocabulary: 1024,
            positions: 512,
            projection: 256,
            max_text: 32,
        }),
        language: Some(LanguageConfig { layers: LAYERS, ..LanguageConfig::phi2() }),
        stage: 3,
    }
}

/// CPU time of this process so far, in milliseconds; wall time where the system does not tell.
fn cpu_ms(start: Instant) -> f64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ns: f64 = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<f64>().ok())
        .sum();
    if ns > 0.0 { ns / 1e6 } else { start.elapsed().as_secs_f64() * 1e3 }
}

/// CPU time of `work` after one run to warm up, the least of `times` samples, in milliseconds.
fn least(times: usize, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    // The system counts in ticks of some milliseconds, so a sample is much longer than that.
    let once = start.elapsed().as_secs_f64();
    let runs = (0.08 / once).ceil().max(1.0) as u32;
    (0..times).fold(f64::INFINITY, |least, _| {
        let before = cpu_ms(start);
        (0..runs).for_each(|_| work());
        least.min((cpu_ms(start) - before) / f64::from(runs))
    })
}

fn row(what: &str, ms: f64) {
    println!("  {what:<46}{ms:>10.2}");
}

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0_f32, 1.0, shape, &Device::Cpu).unwrap()
}

/// What is not a matrix product, at the ViT's and Phi's shapes.
fn operations() {
    println!("single operations: CPU milliseconds");
    let weight = QTensor::quantize(&random(&[6144, 1536]), GgmlDType::Q8_0).unwrap();
    let weight = QMatMul::from_qtensor(weight).unwrap();
    let xs = random(&[257, 1536]);
    let run = || drop(weight.forward(&xs).unwrap());
    row("candle's product in q8_0, 257 x 1536 x 6144", least(5, run));
    let (xs, weight) = (random(&[257, 1408]), random(&[6144, 1408]));
    let run = || drop(xs.matmul(&weight.t().unwrap()).unwrap());
    row("candle's product in f32, 257 x 1408 x 6144", least(5, run));
    for rows in [1, 16, 257] {
        let (xs, weight) = (xs.narrow(0, 0, rows).unwrap(), weight.to_dtype(DType::F16).unwrap());
        let run = || drop(half_product(&xs, &weight).unwrap());
        row(&format!("product with f16 weights, {rows} x 1408 x 6144"), least(5, run));
    }
    for (name, activation, shape) in [
        ("bias + GELU (erf) 257 x 6144", Activation::GeluErf, [257, 6144]),
        ("bias + GELU (tanh) 64 x 10240", Activation::GeluTanh, [64, 10240]),
    ] {
        let (xs, bias) = (random(&shape), random(&shape[1..]));
        let run = || drop(activation.of_fresh(xs.clone(), Some(&bias)).unwrap());
        row(name, least(5, run));
    }
    let (xs, weight) = (random(&[257, 1408]), random(&[1408]));
    let run = || drop(layer_norm(&xs, &weight, &weight, 1e-6).unwrap());
    row("layer norm 257 x 1408", least(5, run));
    for tokens in [257, 1025] {
        let qkv = random(&[1, tokens, 3, 16, 88]);
        let part = |i| qkv.narrow(2, i, 1).unwrap().squeeze(2).unwrap();
        let (q, k, v) = (part(0), part(1), part(2));
        let run = || drop(attention(&q, &k, &v, 0.1, Visible::default()).unwrap());
        row(&format!("attention 16 heads, {tokens} x 88"), least(5, run));
    }
    let (q, kv) = (random(&[16, 1, 32, 80]), random(&[16, 32, 80, 80]));
    let kv = kv.transpose(1, 2).unwrap();
    let visible = Visible { causal: true, hidden: None };
    let run = || drop(attention(&q, &kv, &kv, 0.1, visible).unwrap());
    row("attention 16 x 32 heads, one query, 80 keys", least(5, run));
}

fn vision(bundle: &Bundle) {
    let w = bundle.weights(&Device::Cpu, DType::F32);
    let (vision, retrieval) =
        (bundle.config().vision.clone().unwrap(), bundle.config().retrieval.clone().unwrap());
    let vit = EvaVit::load(&vision, &w.pp("vit")).unwrap();
    // One layer's share is the difference between two layers and none.
    let none = VisionConfig { depth: 0, ..vision.clone() };
    let none = EvaVit::load(&none, &w.pp("vit")).unwrap();
    for (batch, size) in [(1, 224), (4, 224), (1, 448)] {
        let pixels = random(&[batch, 3, size, size]);
        let all = least(3, || drop(vit.forward(&pixels).unwrap())) / batch as f64;
        let rest = least(3, || drop(none.forward(&pixels).unwrap())) / batch as f64;
        let full = rest + (all - rest) / LAYERS as f64 * VisionConfig::vit_g().depth as f64;
        row(&format!("ViT, {size} px, batch {batch}"), full);
    }
    let tokens = random(&[1, 257, vision.width]);
    let scale = QFormerConfig::blip2(224).layers as f64 / LAYERS as f64;
    let captioner = bundle.config().captioner.clone().unwrap();
    let captioner = QFormer::load(&captioner, vision.width, &w.pp("captioner")).unwrap();
    let run = || drop(captioner.forward_image(&tokens).unwrap());
    row("captioning Q-Former", least(5, run) * scale);
    let qformer = RetrievalQFormer::load(&retrieval, vision.width, &w.pp("retrieval")).unwrap();
    row("retrieval Q-Former", least(5, || drop(qformer.image_features(&tokens).unwrap())) * scale);
    let tower = TextTower::load(&retrieval, &w.pp("retrieval")).unwrap();
    let ids = [vec![5_u32; 8]];
    row("text tower, 8 tokens", least(5, || drop(tower.text_features(&ids).unwrap())) * scale);
}

fn language(bundle: &Bundle) {
    let config = bundle.config().language.clone().unwrap();
    let w = bundle.weights(&Device::Cpu, DType::F32).pp("language");
    let phi = Phi::load(&config, &w).unwrap();
    let depth = LanguageConfig::phi2().layers as f64 / LAYERS as f64;
    for batch in [1, 4, 16] {
        let prompt = random(&[batch, PROMPT, config.hidden]);
        let prefill = || -> KvCache {
            let mut cache = phi.cache(&vec![0; batch]);
            phi.forward(&prompt, &mut cache).unwrap();
            cache
        };
        let ms = least(3, || drop(prefill())) * depth / batch as f64;
        row(&format!("Phi-2, prefill of {PROMPT} tokens, batch {batch}"), ms);
        let token = random(&[batch, 1, config.hidden]);
        let decode = || {
            let mut cache = prefill();
            for _ in 0..CAPTION {
                phi.forward(&token, &mut cache).unwrap();
            }
        };
        let decoding = (least(3, decode) * depth / batch as f64 - ms).max(0.0);
        row(&format!("Phi-2, {CAPTION} tokens, batch {batch}"), decoding);
        let last = random(&[batch, config.hidden]);
        let head = least(5, || drop(phi.logits(&last).unwrap())) / batch as f64;
        row(&format!("Phi-2, head for {CAPTION} tokens, batch {batch}"), head * CAPTION as f64);
    }
}
