//! Bundles written and read back.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::*;
use crate::model::{
    config::{LanguageConfig, QFormerConfig, RetrievalConfig, VisionConfig},
    import::random::{Tokenizers, write_random},
    weights::Stored,
};

/// All parts, as small as can be.
pub(crate) fn small_config() -> Config {
    let qformer = QFormerConfig {
        hidden: 32,
        layers: 2,
        heads: 2,
        intermediate: 64,
        ..QFormerConfig::blip2(224)
    };
    Config {
        vision: Some(VisionConfig {
            width: 48,
            depth: 2,
            heads: 3,
            mlp: 209,
            ..VisionConfig::vit_g()
        }),
        captioner: Some(qformer.clone()),
        retrieval: Some(RetrievalConfig {
            qformer,
            vocabulary: 102,
            positions: 64,
            projection: 24,
            max_text: 32,
        }),
        language: Some(LanguageConfig {
            projection_mid: 72,
            vocabulary: 448,
            hidden: 96,
            layers: 2,
            heads: 3,
            intermediate: 200,
            rotary: 12,
            ..LanguageConfig::phi2()
        }),
        stage: 3,
    }
}

fn published_config() -> Config {
    Config {
        vision: Some(VisionConfig::vit_g()),
        captioner: Some(QFormerConfig::blip2(224)),
        retrieval: Some(RetrievalConfig {
            qformer: QFormerConfig::blip2(224),
            vocabulary: 30523,
            positions: 512,
            projection: 256,
            max_text: 32,
        }),
        language: Some(LanguageConfig {
            lora_scale: Some(0.25),
            lora_rank: Some(64),
            ..LanguageConfig::phi2()
        }),
        stage: 3,
    }
}

fn write(folder: &Path, weight_type: WeightType) -> PathBuf {
    let path = folder.join(format!("{weight_type}.gguf"));
    let tokenizers = Tokenizers { phi: Some("{}"), bert: Some("[PAD]\n[DEC]\n") };
    write_random(&small_config(), weight_type, 5, &path, tokenizers).unwrap();
    path
}

type Shapes = BTreeMap<String, Vec<usize>>;

fn manifest(file: &str) -> Shapes {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/goldens/manifest_fullsize.json");
    let text = std::fs::read_to_string(path).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tensors = manifest[file]["tensors"].as_array().unwrap();
    let tensor = |t: &serde_json::Value| {
        let shape = t[2].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize);
        (t[0].as_str().unwrap().to_owned(), shape.collect())
    };
    tensors.iter().map(tensor).collect()
}

fn part(prefix: &str) -> Shapes {
    let specs = tensors_of(&published_config()).into_iter();
    specs.filter_map(|s| Some((s.name.strip_prefix(prefix)?.to_owned(), s.shape))).collect()
}

#[test]
fn the_vit_has_the_tensors_of_the_published_file() {
    let mut published = manifest("eva_vit_g.pth");
    published.retain(|name, _| {
        !["blocks.39.", "norm.", "head."].iter().any(|unused| name.starts_with(unused))
    });
    published.insert("patch_embed.proj.weight".to_owned(), vec![1408, 3 * 14 * 14]);
    assert_eq!(part("vit."), published);
}

#[test]
fn the_captioner_has_the_tensors_of_the_published_file() {
    let mut published = manifest("blip2_pretrained_flant5xxl.pth");
    published.retain(|name, _| !name.starts_with("t5_proj") && !name.ends_with("position_ids"));
    assert_eq!(part("captioner."), published);
}

#[test]
fn the_retrieval_part_has_the_tensors_of_the_published_file() {
    let mut published = manifest("blip2_pretrained.pth (LAVIS stage 1)");
    published.retain(|name, _| !name.starts_with("Qformer.cls") && !name.ends_with("position_ids"));
    published.insert("temp".to_owned(), vec![1]);
    assert_eq!(part("retrieval."), published);
}

#[test]
fn the_language_part_has_the_tensors_of_the_published_files_together() {
    let mut published =
        manifest("phi-2/pytorch_model.bin (old susnato layout, HF space llizhx/TinyGPT-V)");
    for (name, shape) in manifest("TinyGPT-V_for_Stage3.pth") {
        let name = name.strip_prefix("llama_model.base_model.model.").unwrap_or(&name);
        if !name.starts_with("Qformer") {
            published.insert(name.to_owned(), shape);
        }
    }
    for i in 0..32 {
        for norm in ["q_layernorm", "k_layernorm"] {
            let name = format!("model.layers.{i}.self_attn.{norm}.bias");
            published.insert(name, vec![80]);
        }
    }
    assert_eq!(part("language."), published);
}

#[test]
fn a_bundle_tells_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&write(folder.path(), WeightType::F16)).unwrap();
    assert_eq!(*bundle.config(), small_config());
    assert_eq!((bundle.name(), bundle.phi_tokenizer()), ("random", Some("{}")));
    assert_eq!(bundle.bert_vocabulary(), Some("[PAD]\n[DEC]\n"));
    assert_eq!(bundle.fingerprint().len(), 64);
    assert_eq!(bundle.tensors().count(), tensors_of(&small_config()).len());
    assert!(bundle.tensors().all(|t| t.offset.is_multiple_of(gguf::ALIGNMENT)));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file stays: {left:?}");
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let about = Bundle::open(&write(folder.path(), WeightType::F16)).unwrap().about().clone();
    let path = folder.path().join("new");
    let specs = tensors_of(&small_config());
    let writer = BundleWriter::create(&path, &about, &specs, WeightType::F32).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, BundleError::Io { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn weights_come_as_they_were_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, cols, name) = (200, 96, "language.model.layers.1.mlp.fc1.weight");
    let read = |weight_type| {
        let bundle = Bundle::open(&write(folder.path(), weight_type)).unwrap();
        bundle.weights(&Device::Cpu, DType::F32)
    };
    let exact = read(WeightType::F32).get((rows, cols), name).unwrap();
    let error = |other: &Tensor| {
        let difference = (other - &exact).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar::<f32>().unwrap()
    };
    for (weight_type, dtype, tolerance) in
        [(WeightType::F16, DType::F16, 1e-3), (WeightType::Bf16, DType::BF16, 4e-3)]
    {
        let weights = read(weight_type);
        let Stored::Dense(stored) = weights.stored(rows, cols, name).unwrap() else {
            panic!("{weight_type} is dense")
        };
        assert_eq!(stored.dtype(), dtype);
        assert!(error(&stored.to_dtype(DType::F32).unwrap()) < tolerance);
    }
    for (weight_type, tolerance) in
        [(WeightType::Q8_0, 2e-3), (WeightType::Q6K, 1e-2), (WeightType::Q4K, 4e-2)]
    {
        let weights = read(weight_type);
        let Stored::Quantized(stored) = weights.stored(rows, cols, name).unwrap() else {
            panic!("{weight_type} is quantised")
        };
        assert_eq!(stored.shape().dims(), [rows, ROW_MULTIPLE]);
        let padding = stored.dequantize(&Device::Cpu).unwrap().narrow(1, cols, 160).unwrap();
        let sum = padding.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(sum < f32::EPSILON, "{weight_type} pads with {sum}");
        assert!(error(&weights.get((rows, cols), name).unwrap()) < tolerance);
    }
}

#[test]
fn only_the_language_part_goes_below_eight_bits() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&write(folder.path(), WeightType::Q4K)).unwrap();
    for tensor in bundle.tensors().filter(|t| is_quantised(t.dtype)) {
        let language = tensor.name.starts_with("language.");
        let expected = if language { "Q4K" } else { "Q8_0" };
        assert_eq!(format!("{:?}", tensor.dtype), expected, "{}", tensor.name);
    }
}

#[test]
fn rows_of_a_table_are_those_of_the_whole_table() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&write(folder.path(), WeightType::Q8_0)).unwrap();
    let weights = bundle.weights(&Device::Cpu, DType::F32).pp("language").pp("model");
    let table = weights.rows(448, 96, "embed_tokens.weight").unwrap();
    let whole = weights.get((448, 96), "embed_tokens.weight").unwrap();
    let ids = [447, 0, 3, 3];
    let picked = table.gather(&ids).unwrap().to_vec2::<f32>().unwrap();
    let whole = whole.to_vec2::<f32>().unwrap();
    assert_eq!(picked, ids.map(|i| whole[i as usize].clone()));
    let error = table.gather(&[448]).unwrap_err().to_string();
    assert!(error.contains("language.model.embed_tokens.weight"), "{error}");
    assert_eq!(table.gather(&[]).unwrap().dims(), [0, 96]);
}

#[test]
fn errors_name_the_tensor_and_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), WeightType::F32);
    let weights = Bundle::open(&path).unwrap().weights(&Device::Cpu, DType::F32).pp("vit");
    for error in [
        weights.get(7, "nothing").unwrap_err(),
        weights.get((1, 1, 7), "cls_token").unwrap_err(),
        weights.stored(7, 7, "blocks.0.attn.proj.weight").unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("`vit.") && error.contains("f32.gguf"), "{error}");
    }
}

#[test]
fn a_bundle_that_lacks_a_tensor_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let about = Bundle::open(&write(folder.path(), WeightType::F16)).unwrap().about().clone();
    let path = folder.path().join("incomplete");
    let mut specs = tensors_of(&small_config());
    let gone = specs.remove(9);
    let mut writer = BundleWriter::create(&path, &about, &specs, WeightType::F32).unwrap();
    while let Some(size) = writer.next_tensor().map(|t| t.size) {
        writer.write(&vec![0; size as usize]).unwrap();
    }
    writer.finish().unwrap();
    let error = Bundle::open(&path).unwrap_err().to_string();
    assert!(error.contains(&gone.name) && error.contains("incomplete"), "{error}");
}

#[test]
fn files_that_are_no_bundles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other");
    for content in [&b""[..], b"GGUF", b"PK\x03\x04 something else"] {
        std::fs::write(&path, content).unwrap();
        let error = Bundle::open(&path).unwrap_err();
        assert!(matches!(error, BundleError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn verification_names_the_tensor_whose_data_changed() {
    let folder = tempfile::tempdir().unwrap();
    for weight_type in [WeightType::F32, WeightType::Q5K] {
        let path = write(folder.path(), weight_type);
        let bundle = Bundle::open(&path).unwrap();
        let sound = bundle.verify().unwrap();
        assert_eq!((sound.bad.len(), sound.tensors), (0, bundle.tensors().count()));
        let victim = bundle.find("captioner.query_tokens").unwrap().clone();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[victim.offset as usize] ^= 1;
        let changed = folder.path().join("changed");
        std::fs::write(&changed, bytes).unwrap();
        let bad = Bundle::open(&changed).unwrap().verify().unwrap().bad;
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].name, victim.name);
    }
}

#[test]
fn verification_names_tensors_that_are_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let about = Bundle::open(&write(folder.path(), WeightType::F16)).unwrap().about().clone();
    let path = folder.path().join("infinite");
    let specs = tensors_of(&small_config());
    for weight_type in [WeightType::F32, WeightType::F16, WeightType::Bf16, WeightType::Q8_0] {
        let mut writer = BundleWriter::create(&path, &about, &specs, weight_type).unwrap();
        let victim = "language.lm_head.weight";
        while let Some(tensor) = writer.next_tensor() {
            let mut data = vec![0; tensor.size as usize];
            if tensor.name == victim {
                data.fill(0xff); // NaN in every float type, the scale of q8_0 included
            }
            writer.write(&data).unwrap();
        }
        writer.finish().unwrap();
        let bad = Bundle::open(&path).unwrap().verify().unwrap().bad;
        assert_eq!(bad.len(), 1, "{weight_type}: {bad:?}");
        assert_eq!(bad[0].name, victim);
    }
}

#[test]
fn a_bundle_tells_how_it_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.gguf"), folder.path().join("to.gguf"));
    let config = small_config();
    write_random(&config, WeightType::F16, 5, &from, Tokenizers::default()).unwrap();
    let base = Bundle::open(&from).unwrap();
    assert_eq!(base.about().training, []);
    assert_eq!(base.about().recipe, []);
    let data = Source {
        role: "data".to_owned(),
        file: "my.jsonl".to_owned(),
        size: 7,
        blake3: "00".to_owned(),
    };
    let training = Training {
        base: base.name().to_owned(),
        base_fingerprint: base.fingerprint().to_owned(),
        stage: 3,
        method: "LoRA".to_owned(),
        data,
        examples: 9,
        steps: 1000,
        batch: 6,
        rate: 3e-5,
        seed: 42,
        validation_loss: Some(0.125),
        version: "0.1.0".to_owned(),
    };
    let recipe = RecipeStage {
        name: "vision".to_owned(),
        steps: 20_000,
        batch: 16,
        rate: 2e-3,
        version: "0.1.0".to_owned(),
    };
    let about = About { recipe: vec![recipe], training: vec![training], ..base.about().clone() };
    let mut writer =
        BundleWriter::create(&to, &about, &tensors_of(&config), WeightType::F16).unwrap();
    for tensor in base.tensors() {
        writer.write(base.data(tensor)).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(Bundle::open(&to).unwrap().about(), &about);
}
