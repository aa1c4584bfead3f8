//! Forward and backward passes at the sizes of a small model, with the fused operations and
//! with candle's own.
//!
//!     CANDLE_NUM_THREADS=1 cargo bench --bench training
//!
//! Without that setting candle splits its own operations among threads that wait for work in a
//! loop, and whose CPU time is not seen here. One thread, CPU time, the least of several runs,
//! both ways in turn: it holds better than wall time on a machine that does other work.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program that prints"
)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use tinyfind::model::bundle::{Bundle, WeightType};
use tinyfind::model::config::{
    Config, LanguageConfig, QFormerConfig, RetrievalConfig, VisionConfig,
};
use tinyfind::model::eva_vit::EvaVit;
use tinyfind::model::import::random::{Tokenizers, write_random};
use tinyfind::model::kernels::with_plain_gradients;
use tinyfind::model::phi::Phi;
use tinyfind::model::qformer::RetrievalQFormer;
use tinyfind::model::weights::Weights;

/// Pictures, texts or sequences of a step.
const BATCH: usize = 16;
/// Steps that are timed, of each way.
const STEPS: usize = 8;
const WIDTH: usize = 128;

fn main() {
    // `cargo test --benches` builds and starts this too, without `--bench`.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.gguf");
    write_random(&config(), WeightType::F32, 1, &path, Tokenizers::default()).unwrap();
    let bundle = Bundle::open(&path).unwrap();
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| run(&bundle));
}

fn config() -> Config {
    let qformer = QFormerConfig {
        queries: 16,
        hidden: WIDTH,
        layers: 4,
        heads: 4,
        intermediate: 4 * WIDTH,
        ..QFormerConfig::blip2(112)
    };
    Config {
        vision: Some(VisionConfig {
            width: WIDTH,
            depth: 4,
            heads: 4,
            mlp: 558,
            train_size: 112,
            ..VisionConfig::vit_g()
        }),
        captioner: Some(qformer.clone()),
        retrieval: Some(RetrievalConfig {
            qformer,
            vocabulary: 512,
            positions: 64,
            projection: 64,
            max_text: 32,
        }),
        language: Some(LanguageConfig {
            hidden: WIDTH,
            layers: 4,
            heads: 4,
            intermediate: 4 * WIDTH,
            rotary: 12,
            vocabulary: 512,
            max_positions: 128,
            ..LanguageConfig::phi2()
        }),
        stage: 3,
    }
}

fn run(bundle: &Bundle) {
    let plain = bundle.weights(&Device::Cpu, DType::F32);
    let vars = bundle.tensors().map(|tensor| {
        let value = plain.get(tensor.shape.as_slice(), &tensor.name).unwrap();
        (tensor.name.clone(), Var::from_tensor(&value).unwrap().into_inner())
    });
    let trained: BTreeMap<String, Tensor> = vars.collect();
    let w = plain.training(trained);
    let config = bundle.config();
    println!("passes of {BATCH} a second, one thread: forward, forward and backward");

    let vision = config.vision.clone().unwrap();
    let pixels = random(&[BATCH, 3, 112, 112]);
    compare("ViT, 65 tokens", &w, |w| EvaVit::load(&vision, &w.pp("vit"))?.forward(&pixels));

    let retrieval = config.retrieval.clone().unwrap();
    let tokens = random(&[BATCH, 65, WIDTH]);
    let texts: Vec<Vec<u32>> =
        (0..BATCH).map(|row| (0..10 + row as u32 % 5).map(|id| id * 7 % 500).collect()).collect();
    compare("retrieval Q-Former, ITM", &w, |w| {
        RetrievalQFormer::load(&retrieval, WIDTH, &w.pp("retrieval"))?.itm(&tokens, &texts)
    });

    let language = config.language.clone().unwrap();
    let ids: Vec<u32> = (0..BATCH as u32 * 40).map(|i| i * 31 % 512).collect();
    compare("Phi, 40 tokens, with logits", &w, |w| {
        let phi = Phi::load(&language, &w.pp("language"))?;
        let embeds = phi.embed(&ids)?.reshape((BATCH, 40, WIDTH))?;
        phi.logits(&phi.forward_whole(&embeds)?)
    });
}

/// Prints how often `BATCH` go through a network in a second.
fn compare(what: &str, w: &Weights, forward: impl Fn(&Weights) -> Result<Tensor>) {
    let mut best = [[f64::INFINITY; 2]; 2];
    for step in 0..=STEPS {
        for (way, best) in best.iter_mut().enumerate() {
            let times = if way == 0 {
                time(w, &forward)
            } else {
                with_plain_gradients(|| time(w, &forward))
            };
            if step > 0 {
                best.iter_mut().zip(times).for_each(|(best, time)| *best = best.min(time));
            }
        }
    }
    for (way, [forward, both]) in ["fused", "plain"].into_iter().zip(best) {
        let rate = |seconds: f64| BATCH as f64 / seconds;
        println!("  {what:<32}{way:<8}{:>8.0}{:>8.0}", rate(forward), rate(both));
    }
}

/// Seconds of a forward pass, and of that with a backward pass.
fn time(w: &Weights, forward: impl Fn(&Weights) -> Result<Tensor>) -> [f64; 2] {
    let clock = Instant::now();
    let start = cpu_seconds(clock);
    let loss = forward(w).unwrap().sqr().unwrap().mean_all().unwrap();
    let middle = cpu_seconds(clock);
    loss.backward().unwrap();
    [middle - start, cpu_seconds(clock) - start]
}

/// CPU time of this thread; wall time where the system does not tell.
fn cpu_seconds(clock: Instant) -> f64 {
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|stat| stat.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| clock.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0_f32, 1.0, shape, &Device::Cpu).unwrap()
}
