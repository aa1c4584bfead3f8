//! Published files, in every layout, become the same bundle; files that do not fit are refused
//! by name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use tinyfind::model::bundle::{Bundle, TensorInfo, WeightType, tensors_of};
use tinyfind::model::import::{
    Dims, ImportError, ImportOptions, ImportSources, ImportStep, Lora, Summary, import,
};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/goldens")
}

fn options(weight_type: WeightType, lora: Lora) -> ImportOptions {
    ImportOptions { weight_type, lora, name: None }
}

fn exact() -> ImportOptions {
    options(WeightType::F32, Lora::Merge)
}

/// The files of a captioning case as they would be published.
fn captioning(case: &str, stage: u8) -> ImportSources {
    let folder = goldens().join(case);
    ImportSources {
        vit: Some(folder.join("eva_vit_g.pth")),
        qformer: Some(folder.join("blip2_pretrained_flant5xxl.pth")),
        phi: Some(folder.join("phi-2")),
        phi_tokenizer: Some(folder.join("phi-2")),
        checkpoint: Some(folder.join(format!("TinyGPT-V_for_Stage{stage}.pth"))),
        stage,
        dims: Dims::read(&folder.join("meta.json")).unwrap(),
        ..ImportSources::default()
    }
}

/// The files of a retrieval case in LAVIS' layout.
fn retrieval(case: &str) -> ImportSources {
    let folder = goldens().join(case);
    ImportSources {
        vit: Some(folder.join("eva_vit_g.pth")),
        retrieval: Some(folder.join("blip2_pretrained.pth")),
        retrieval_vocab: Some(folder.join("bert/vocab.txt")),
        stage: 3,
        dims: Dims::read(&folder.join("meta.json")).unwrap(),
        ..ImportSources::default()
    }
}

fn run(
    sources: &ImportSources,
    options: &ImportOptions,
    output: &Path,
) -> Result<Summary, ImportError> {
    import(sources, options, output, &mut |_| ())
}

/// A bundle in a folder that lives as long as it.
struct Made {
    bundle: Bundle,
    _folder: tempfile::TempDir,
}

fn make(sources: &ImportSources, options: &ImportOptions) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.gguf");
    let summary = run(sources, options, &path).unwrap_or_else(|e| panic!("{e}: {sources:?}"));
    let bundle = Bundle::open(&path).unwrap();
    assert_eq!(summary.tensors, bundle.tensors().count());
    assert_eq!(summary.bytes, bundle.size_in_bytes());
    assert_eq!(bundle.verify().unwrap().bad, []);
    Made { bundle, _folder: folder }
}

fn values(bundle: &Bundle, tensor: &TensorInfo) -> Vec<f32> {
    let weights = bundle.weights(&Device::Cpu, DType::F32);
    let read = weights.get(tensor.shape.as_slice(), &tensor.name).unwrap();
    read.flatten_all().unwrap().to_vec1().unwrap()
}

fn value(bundle: &Bundle, name: &str) -> Vec<f32> {
    values(bundle, bundle.tensors().find(|t| t.name == name).unwrap())
}

/// Checks that two bundles hold the same tensors with the same values.
fn assert_same(a: &Bundle, b: &Bundle) {
    let names = |bundle: &Bundle| -> Vec<(String, Vec<usize>)> {
        bundle.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect()
    };
    assert_eq!(names(a), names(b));
    for (x, y) in a.tensors().zip(b.tensors()) {
        assert!(values(a, x) == values(b, y), "{} differs", x.name);
    }
}

/// Published tensors by name, to be written in some layout.
#[derive(Clone, Default)]
struct Published(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Published {
    /// The tensors of a bundle's part, by their names behind its prefix.
    fn of(bundle: &Bundle, prefix: &str) -> Self {
        let tensors = bundle.tensors().filter_map(|t| {
            let name = t.name.strip_prefix(prefix)?;
            Some((name.to_owned(), (t.shape.clone(), values(bundle, t))))
        });
        Self(tensors.collect())
    }

    fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.0.insert(name.to_owned(), (shape.to_vec(), values));
    }

    fn remove(&mut self, name: &str) -> (Vec<usize>, Vec<f32>) {
        self.0.remove(name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }

    fn rename(&mut self, new: impl Fn(&str) -> String) {
        self.0 = std::mem::take(&mut self.0).into_iter().map(|(n, t)| (new(&n), t)).collect();
    }

    fn write(&self, path: &Path) {
        let bytes: BTreeMap<&String, Vec<u8>> = self
            .0
            .iter()
            .map(|(name, (_, v))| (name, v.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let views = self.0.iter().map(|(name, (shape, _))| {
            (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap())
        });
        safetensors::serialize_to_file(views, None, path).unwrap();
    }
}

#[test]
fn every_case_in_the_repository_is_imported_with_its_sizes() {
    for (case, stage) in [("a1", 3), ("a1", 4), ("a3", 3), ("a3", 4)] {
        let made = make(&captioning(case, stage), &exact());
        let config = made.bundle.config();
        let vision = config.vision.as_ref().unwrap();
        assert_eq!((vision.patch, vision.train_size), (14, 224));
        let captioner = config.captioner.as_ref().unwrap();
        assert_eq!(captioner.image_size, if stage == 4 { 448 } else { 224 });
        let language = config.language.as_ref().unwrap();
        assert_eq!((language.rotary, language.vocabulary), (12, 448));
        assert_eq!((config.stage, &config.retrieval), (stage, &None));
        assert!(made.bundle.phi_tokenizer().unwrap().contains("<|endoftext|>"));
        assert_eq!(made.bundle.bert_vocabulary(), None);
        assert_eq!(made.bundle.name(), format!("tinygpt-v-stage{stage}"));
    }
    for case in ["b1", "b3"] {
        let made = make(&retrieval(case), &exact());
        let retrieval = made.bundle.config().retrieval.as_ref().unwrap();
        assert_eq!((retrieval.vocabulary, retrieval.positions), (102, 512));
        assert!((retrieval.qformer.ln_vision_eps - 1e-5).abs() < 1e-12);
        assert_eq!(made.bundle.config().language, None);
        let vocabulary = made.bundle.bert_vocabulary().unwrap();
        assert_eq!(vocabulary.lines().last(), Some("[DEC]"));
        assert_eq!(vocabulary.lines().count(), 102);
    }
}

#[test]
fn one_bundle_holds_captions_and_retrieval_over_one_vit() {
    let mut sources = captioning("a3", 4);
    sources.retrieval = retrieval("b3").retrieval;
    sources.retrieval_vocab = retrieval("b3").retrieval_vocab;
    sources.dims.proj = Some(24);
    let both = make(&sources, &exact()).bundle.tensors().count();
    let alone = |sources| make(&sources, &exact()).bundle.tensors().count();
    let vit = tensors_of(make(&retrieval("b3"), &exact()).bundle.config())
        .into_iter()
        .filter(|spec| spec.name.starts_with("vit."))
        .count();
    assert_eq!(both, alone(captioning("a3", 4)) + alone(retrieval("b3")) - vit);
}

#[test]
fn phi_in_every_layout_gives_the_same_bundle() {
    for case in ["a1", "a3"] {
        let pickled = make(&captioning(case, 3), &exact());
        for folder in ["phi-2-safetensors-old", "phi-2-safetensors-new"] {
            let mut sources = captioning(case, 3);
            let folder = goldens().join(case).join(folder);
            if folder.is_dir() {
                sources.phi = Some(folder);
                assert_same(&pickled.bundle, &make(&sources, &exact()).bundle);
            }
        }
    }
}

/// The base Phi-2 of case a3 under the names of its first layout, and its heads.
fn base_phi() -> (Published, usize) {
    let made = make(&captioning("a3", 3), &options(WeightType::F32, Lora::Keep));
    let mut phi = Published::of(&made.bundle, "language.");
    phi.retain(|name| {
        !["llama_proj", "lora_", "q_layernorm", "k_layernorm", "post_layernorm"]
            .iter()
            .any(|other| name.contains(other))
    });
    (phi, made.bundle.config().language.as_ref().unwrap().heads)
}

/// Rows `[head][q|k|v]` of a fused tensor as `[part][head]`.
fn ungrouped(values: &[f32], heads: usize) -> Vec<&[f32]> {
    let blocks: Vec<&[f32]> = values.chunks(values.len() / (3 * heads)).collect();
    (0..3).flat_map(|part| (0..heads).map(move |head| head * 3 + part)).map(|i| blocks[i]).collect()
}

fn with_phi(phi: &Published, folder: &Path) -> ImportSources {
    phi.write(&folder.join("model.safetensors"));
    ImportSources { phi: Some(folder.to_owned()), ..captioning("a3", 3) }
}

#[test]
fn the_first_microsoft_layout_is_regrouped() {
    let expected = make(&captioning("a3", 3), &exact());
    let (mut phi, heads) = base_phi();
    for (name, (_, values)) in &mut phi.0 {
        if name.contains("query_key_value") {
            *values = ungrouped(values, heads).concat();
        }
    }
    phi.rename(|name| {
        name.replace("model.embed_tokens", "transformer.embd.wte")
            .replace("model.final_layernorm", "lm_head.ln")
            .replace("lm_head.weight", "lm_head.linear.weight")
            .replace("lm_head.bias", "lm_head.linear.bias")
            .replace("model.layers", "transformer.h")
            .replace("input_layernorm", "ln")
            .replace("self_attn.query_key_value", "mixer.Wqkv")
            .replace("self_attn.dense", "mixer.out_proj")
    });
    let folder = tempfile::tempdir().unwrap();
    assert_same(&expected.bundle, &make(&with_phi(&phi, folder.path()), &exact()).bundle);
}

#[test]
fn separate_projections_are_fused_from_one_file_and_from_shards() {
    let expected = make(&captioning("a3", 3), &exact());
    let (mut phi, heads) = base_phi();
    for (name, (mut shape, values)) in phi.clone().0 {
        if name.contains("query_key_value") {
            phi.remove(&name);
            shape[0] /= 3;
            for (letter, part) in
                ["q", "k", "v"].iter().zip(ungrouped(&values, heads).chunks(heads))
            {
                let name = name.replace("query_key_value", &format!("{letter}_proj"));
                phi.insert(&name, &shape, part.concat());
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let sources = with_phi(&phi, folder.path());
    assert_same(&expected.bundle, &make(&sources, &exact()).bundle);

    // The same in two files that an index joins, by the name that pickles have.
    let (mut first, mut second) = (phi.clone(), phi.clone());
    first.retain(|name| name.contains("layers.0"));
    second.retain(|name| !name.contains("layers.0"));
    let mut files = HashMap::new();
    for (file, part) in [("pytorch_model-1.bin", &first), ("pytorch_model-2.bin", &second)] {
        part.write(&folder.path().join(file));
        files.extend(part.0.keys().map(|name| (name.clone(), file)));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": files}).to_string();
    std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index).unwrap();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert_same(&expected.bundle, &make(&sources, &exact()).bundle);
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let index = r#"{"weight_map": {"a": "../../secret.bin"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let sources = ImportSources { phi: Some(folder.path().to_owned()), ..captioning("a3", 3) };
    let error = run(&sources, &exact(), &folder.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("../../secret.bin"), "{error}");
}

#[test]
fn new_lora_names_mean_what_the_old_ones_mean() {
    for lora in [Lora::Merge, Lora::Keep] {
        let old = captioning("a1", 4);
        let new = ImportSources {
            checkpoint: Some(goldens().join("a1/stage4_peft_new_names.pth")),
            ..captioning("a1", 4)
        };
        let options = options(WeightType::F32, lora);
        assert_same(&make(&old, &options).bundle, &make(&new, &options).bundle);
    }
}

#[test]
fn merged_lora_is_the_kept_one_added_to_the_weights() {
    let sources = captioning("a1", 3);
    let merged = make(&sources, &exact());
    let kept = make(&sources, &options(WeightType::F32, Lora::Keep));
    let language = kept.bundle.config().language.as_ref().unwrap();
    assert_eq!((language.lora_rank, language.lora_scale), (Some(8), Some(0.25)));
    assert_eq!(merged.bundle.config().language.as_ref().unwrap().lora_rank, None);
    let device = Device::Cpu;
    let (merged, kept) =
        (merged.bundle.weights(&device, DType::F32), kept.bundle.weights(&device, DType::F32));
    for i in 0..3 {
        for (layer, rows) in [("query_key_value", 384), ("dense", 128)] {
            let at = format!("language.model.layers.{i}.self_attn.{layer}");
            let (merged, kept) = (merged.pp(&at), kept.pp(&at));
            let a = kept.get((8, 128), "lora_A.weight").unwrap();
            let b = kept.get((rows, 8), "lora_B.weight").unwrap();
            let base = kept.get((rows, 128), "weight").unwrap();
            let sum = (base + (b.matmul(&a).unwrap() * 0.25).unwrap()).unwrap();
            let found = merged.get((rows, 128), "weight").unwrap();
            let worst = (&sum - &found).unwrap().abs().unwrap().max_all().unwrap();
            assert!(worst.to_scalar::<f32>().unwrap() < 1e-6, "{at}");
            let added = (found - kept.get((rows, 128), "weight").unwrap()).unwrap();
            let added: Tensor = added.abs().unwrap().max_all().unwrap();
            assert!(added.to_scalar::<f32>().unwrap() > 1e-3, "{at} has no LoRA");
            assert!(!merged.contains("lora_A.weight"));
        }
    }
}

#[test]
fn a_stage_1_file_needs_no_lora_and_no_peft_prefix() {
    let kept = make(&captioning("a1", 3), &options(WeightType::F32, Lora::Keep));
    let mut stage = Published::of(&kept.bundle, "language.");
    let replaced = [".input_layernorm", "q_layernorm", "k_layernorm", "post_layernorm"];
    stage.retain(|name| {
        name.starts_with("llama_proj")
            || name.ends_with(".weight")
                && (replaced.iter().any(|n| name.contains(n)) || name.contains("final_layernorm"))
    });
    stage.rename(|name| {
        if name.starts_with("llama_proj") { name.to_owned() } else { format!("llama_model.{name}") }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stage1.safetensors");
    stage.write(&file);
    let mut sources = ImportSources { checkpoint: Some(file), stage: 1, ..captioning("a1", 3) };
    let stage1 = make(&sources, &exact());
    for tensor in stage1.bundle.tensors() {
        assert!(values(&stage1.bundle, tensor) == value(&kept.bundle, &tensor.name));
    }
    // Every later stage was trained with it, so there its absence is an accident.
    sources.stage = 3;
    let error = run(&sources, &exact(), &folder.path().join("out")).unwrap_err();
    let ImportError::Missing { tensor, .. } = error else { panic!("{error}") };
    assert!(tensor.contains("lora_A"), "{tensor}");
}

#[test]
fn norms_come_from_the_checkpoint_and_their_biases_from_phi() {
    let tuned = make(&captioning("a3", 3), &exact());
    let other = make(&captioning("a3", 4), &exact());
    let at = |name: &str| format!("language.model.layers.0.{name}");
    for name in ["input_layernorm", "self_attn.q_layernorm", "post_layernorm"] {
        let name = at(&format!("{name}.weight"));
        assert!(value(&tuned.bundle, &name) != value(&other.bundle, &name), "{name}");
    }
    let bias = at("input_layernorm.bias");
    assert!(value(&tuned.bundle, &bias) == value(&other.bundle, &bias));
    assert!(value(&tuned.bundle, &bias).iter().any(|&v| v != 0.0));
    let bias = value(&tuned.bundle, &at("self_attn.q_layernorm.bias"));
    assert!(bias.iter().all(|&v| v == 0.0));
}

#[test]
fn the_first_stage_4_file_replaces_the_qformer_but_not_ln_vision() {
    let stage3 = make(&captioning("a3", 3), &exact());
    let stage4 = make(&captioning("a3", 4), &exact());
    for tensor in stage3.bundle.tensors().filter(|t| t.name.starts_with("captioner.")) {
        let same = values(&stage3.bundle, tensor) == value(&stage4.bundle, &tensor.name);
        assert_eq!(same, tensor.name.contains("ln_vision"), "{}", tensor.name);
    }
    // That of a1 holds none, so BLIP-2's stays.
    let stage3 = make(&captioning("a1", 3), &exact());
    let stage4 = make(&captioning("a1", 4), &exact());
    for tensor in stage3.bundle.tensors().filter(|t| t.name.starts_with("captioner.")) {
        assert!(values(&stage3.bundle, tensor) == value(&stage4.bundle, &tensor.name));
    }
}

fn hugging_face(case: &str) -> ImportSources {
    ImportSources { vit: None, retrieval: Some(goldens().join(case).join("hf")), ..retrieval(case) }
}

/// Checks that two retrieval bundles differ in nothing but `temp` and the epsilon.
fn assert_same_but_temp(lavis: &Bundle, other: &Bundle) {
    for tensor in lavis.tensors().filter(|t| t.name != "retrieval.temp") {
        assert!(values(lavis, tensor) == value(other, &tensor.name), "{}", tensor.name);
    }
    assert_eq!(lavis.tensors().count(), other.tensors().count() + 1);
    let eps = other.config().retrieval.as_ref().unwrap().qformer.ln_vision_eps;
    assert!((eps - 1e-6).abs() < 1e-12);
}

#[test]
fn hugging_face_and_lavis_give_the_same_network() {
    for case in ["b1", "b3"] {
        let lavis = make(&retrieval(case), &exact());
        // Its own ViT, and with the published one given besides.
        for vit in [None, retrieval(case).vit] {
            let sources = ImportSources { vit, ..hugging_face(case) };
            assert_same_but_temp(&lavis.bundle, &make(&sources, &exact()).bundle);
        }
    }
}

fn hugging_face_tensors() -> Published {
    let file = std::fs::read(goldens().join("b1/hf/model.safetensors")).unwrap();
    let mut published = Published::default();
    for (name, view) in safetensors::SafeTensors::deserialize(&file).unwrap().tensors() {
        let values = view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        published.insert(&name, view.shape(), values.collect());
    }
    published
}

#[test]
fn the_first_hugging_face_upload_had_other_names() {
    let mut tensors = hugging_face_tensors();
    tensors.rename(|name| name.replace("_projection.", "_proj."));
    let folder = tempfile::tempdir().unwrap();
    tensors.write(&folder.path().join("pytorch_model.bin"));
    let sources = ImportSources { retrieval: Some(folder.path().to_owned()), ..hugging_face("b1") };
    let lavis = make(&retrieval("b1"), &exact());
    assert_same_but_temp(&lavis.bundle, &make(&sources, &exact()).bundle);
}

#[test]
fn a_bias_for_keys_is_refused() {
    let mut tensors = hugging_face_tensors();
    let name = "vision_model.encoder.layers.1.self_attn.qkv.bias";
    tensors.0.get_mut(name).unwrap().1[64 + 3] = 0.5;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changed.safetensors");
    tensors.write(&file);
    let sources = ImportSources { retrieval: Some(file), ..hugging_face("b1") };
    let output = folder.path().join("out");
    let error = run(&sources, &exact(), &output).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("changed.safetensors"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_lavis_file_may_hold_the_vit_too() {
    let lavis = make(&retrieval("b1"), &exact());
    let mut both = Published::of(&lavis.bundle, "vit.");
    let (_, patches) = both.remove("patch_embed.proj.weight");
    both.insert("patch_embed.proj.weight", &[64, 3, 14, 14], patches);
    both.rename(|name| format!("visual_encoder.{name}"));
    both.0.extend(Published::of(&lavis.bundle, "retrieval.").0);
    let (_, temp) = both.remove("temp");
    both.insert("temp", &[], temp);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("both.safetensors");
    both.write(&file);
    for vit in [None, retrieval("b1").vit] {
        let sources = ImportSources { vit, retrieval: Some(file.clone()), ..retrieval("b1") };
        assert_same(&lavis.bundle, &make(&sources, &exact()).bundle);
    }
}

#[test]
fn a_whole_network_in_a_checkpoint_replaces_phi() {
    let (_, sources, mut stage) = roles().swap_remove(3);
    let name = "model.layers.1.self_attn.dense";
    let published = format!("llama_model.base_model.model.{name}.base_layer.bias");
    stage.insert(&published, &[128], vec![0.25; 128]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("whole.safetensors");
    stage.write(&file);
    let made = make(&with_file("checkpoint", sources, &file), &exact());
    assert_eq!(value(&made.bundle, &format!("language.{name}.bias")), [0.25; 128]);
}

#[test]
fn one_tensor_under_two_names_is_refused() {
    let (_, sources, mut stage) = roles().swap_remove(3);
    let name = "llama_model.base_model.model.model.layers.0.self_attn.dense.lora_A.weight";
    let (shape, values) = stage.0[name].clone();
    stage.insert(&name.replace("lora_A.", "lora_A.default."), &shape, values);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("twice.safetensors");
    stage.write(&file);
    let sources = with_file("checkpoint", sources, &file);
    let error = run(&sources, &exact(), &folder.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("dense.lora_A") && error.contains("two names"), "{error}");
}

/// For each role: a case, and the tensors of its file in a form that can be changed.
fn roles() -> Vec<(&'static str, ImportSources, Published)> {
    let captions = make(&captioning("a1", 3), &options(WeightType::F32, Lora::Keep));
    let lavis = make(&retrieval("b1"), &exact());
    let mut vit = Published::of(&captions.bundle, "vit.");
    let (_, patches) = vit.remove("patch_embed.proj.weight");
    vit.insert("patch_embed.proj.weight", &[64, 3, 14, 14], patches);
    let mut stage = Published::of(&captions.bundle, "language.");
    let mut phi = stage.clone();
    let trained = |name: &str| name.contains("llama_proj") || name.contains("lora_");
    let norm = |name: &str| name.contains("norm");
    stage.retain(|name| trained(name) || norm(name) && name.ends_with("weight"));
    phi.retain(|name| !trained(name) && !name.contains("_layernorm.") || name.contains("input_"));
    phi.retain(|name| !name.contains("self_attn.q_") && !name.contains("self_attn.k_"));
    stage.rename(|name| {
        let prefix = "llama_model.base_model.model.";
        if name.starts_with("llama_proj") { name.to_owned() } else { format!("{prefix}{name}") }
    });
    let norm = Published::of(&captions.bundle, "language.model.final_layernorm.");
    for (name, (shape, values)) in norm.0 {
        phi.insert(&format!("model.final_layernorm.{name}"), &shape, values);
    }
    let mut text = Published::of(&lavis.bundle, "retrieval.");
    let (_, temp) = text.remove("temp");
    text.insert("temp", &[], temp);
    vec![
        ("vit", captioning("a1", 3), vit),
        ("qformer", captioning("a1", 3), Published::of(&captions.bundle, "captioner.")),
        ("phi", captioning("a1", 3), phi),
        ("checkpoint", captioning("a1", 3), stage),
        ("lavis", retrieval("b1"), text),
        ("hf", hugging_face("b1"), hugging_face_tensors()),
    ]
}

fn with_file(role: &str, mut sources: ImportSources, file: &Path) -> ImportSources {
    let slot = match role {
        "vit" => &mut sources.vit,
        "qformer" => &mut sources.qformer,
        "phi" => &mut sources.phi,
        "checkpoint" => &mut sources.checkpoint,
        _ => &mut sources.retrieval,
    };
    *slot = Some(file.to_owned());
    sources
}

#[test]
fn every_tensor_of_every_file_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, output) = (folder.path().join("broken.safetensors"), folder.path().join("out"));
    for (role, sources, tensors) in roles() {
        let sources = with_file(role, sources, &file);
        tensors.write(&file);
        run(&sources, &exact(), &output).unwrap_or_else(|e| panic!("{role}: {e}"));
        std::fs::remove_file(&output).unwrap();
        for name in tensors.0.keys().filter(|name| *name != "temp") {
            let mut incomplete = tensors.clone();
            incomplete.remove(name);
            incomplete.write(&file);
            let error = run(&sources, &exact(), &output).expect_err(name);
            let ImportError::Missing { tensor, path } = error else { panic!("{role}: {error}") };
            assert_eq!((&tensor, &path), (name, &file), "{role}");
        }
        assert!(!output.exists());
    }
}

#[test]
fn a_tensor_that_no_part_knows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, output) = (folder.path().join("broken.safetensors"), folder.path().join("out"));
    for (role, sources, tensors) in roles() {
        let sources = with_file(role, sources, &file);
        for extra in ["nobody.knows.weight", "blocks.77", "model.layers.9.mlp.fc1.weight"] {
            let mut more = tensors.clone();
            more.insert(extra, &[2], vec![0.0; 2]);
            more.write(&file);
            let error = run(&sources, &exact(), &output).unwrap_err();
            let ImportError::Extra { tensor, path } = error else { panic!("{role}: {error}") };
            assert_eq!((tensor.as_str(), &path), (extra, &file), "{role}");
        }
    }
}

#[test]
fn a_tensor_of_another_shape_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, output) = (folder.path().join("broken.safetensors"), folder.path().join("out"));
    for (role, sources, tensors) in roles() {
        let sources = with_file(role, sources, &file);
        for name in tensors.0.keys().filter(|name| *name != "temp") {
            let mut wrong = tensors.clone();
            let (shape, values) = wrong.0.get_mut(name).unwrap();
            shape.insert(0, 1); // as many values, one dimension more
            assert_eq!(shape.iter().product::<usize>(), values.len());
            wrong.write(&file);
            let error = run(&sources, &exact(), &output).expect_err(name).to_string();
            let named = error.contains(name) && error.contains("broken.safetensors");
            assert!(named, "{role} {name}: {error}");
        }
    }
}

#[test]
fn a_tensor_that_is_not_finite_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, output) = (folder.path().join("broken.safetensors"), folder.path().join("out"));
    for (role, sources, mut tensors) in roles() {
        let (name, (_, values)) = tensors.0.iter_mut().find(|(_, t)| t.1.len() > 9).unwrap();
        let name = name.clone();
        values[3] = f32::NAN;
        tensors.write(&file);
        let error = run(&with_file(role, sources, &file), &exact(), &output).unwrap_err();
        assert!(error.to_string().contains(&name), "{role}: {error}");
    }
}

#[test]
fn values_beyond_f16_need_a_wider_type() {
    let folder = tempfile::tempdir().unwrap();
    let (file, output) = (folder.path().join("large.safetensors"), folder.path().join("out"));
    let (role, sources, mut tensors) = roles().swap_remove(1);
    let name = "Qformer.bert.encoder.layer.0.attention.self.query.weight";
    tensors.0.get_mut(name).unwrap().1[0] = 1e6;
    tensors.write(&file);
    let sources = with_file(role, sources, &file);
    for weight_type in WeightType::ALL {
        let made = run(&sources, &options(weight_type, Lora::Merge), &output);
        let wide = matches!(weight_type, WeightType::F32 | WeightType::Bf16);
        assert_eq!(made.is_ok(), wide, "{weight_type}");
    }
}

/// A copy of `from` with one stretch of bytes replaced by another of the same length.
fn patched(from: &Path, folder: &Path, old: &[u8], new: &[u8]) -> PathBuf {
    assert_eq!(old.len(), new.len());
    let mut bytes = std::fs::read(from).unwrap();
    let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
    bytes[at..at + old.len()].copy_from_slice(new);
    let path = folder.join(from.file_name().unwrap());
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_pickle_that_wants_to_run_something_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let original = captioning("a1", 3).checkpoint.unwrap();
    // Any name of the same length as an allowed one, in the nested optimizer's part too.
    let file =
        patched(&original, folder.path(), b"ctorch\nLongStorage\n", b"csubprocess\nPopen2\n");
    let sources = ImportSources { checkpoint: Some(file), ..captioning("a1", 3) };
    let error = run(&sources, &exact(), &folder.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("`subprocess.Popen2`"), "{error}");
    assert!(error.contains("TinyGPT-V_for_Stage3.pth"), "{error}");
}

#[test]
fn a_renamed_tensor_in_a_pickle_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let original = captioning("a1", 3).vit.unwrap();
    let file = patched(&original, folder.path(), b"attn.q_bias", b"attn.x_bias");
    let sources = ImportSources { vit: Some(file.clone()), ..captioning("a1", 3) };
    let error = run(&sources, &exact(), &folder.path().join("out")).unwrap_err();
    let ImportError::Missing { tensor, path } = error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), path), ("blocks.0.attn.q_bias", file));
}

#[test]
fn files_cut_short_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let whole = captioning("a1", 3);
    for (role, original) in [
        ("vit", whole.vit.clone().unwrap()),
        ("qformer", whole.qformer.clone().unwrap()),
        ("checkpoint", whole.checkpoint.clone().unwrap()),
        ("phi", whole.phi.as_ref().unwrap().join("pytorch_model.bin")),
        ("phi", goldens().join("a1/phi-2-safetensors-old/model.safetensors")),
    ] {
        let bytes = std::fs::read(&original).unwrap();
        let file = folder.path().join(original.file_name().unwrap());
        for keep in [0, 3, 100, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&file, &bytes[..keep]).unwrap();
            let sources = with_file(role, whole.clone(), &file);
            let error = run(&sources, &exact(), &folder.path().join("out")).unwrap_err();
            assert!(matches!(error, ImportError::Format { .. }), "{role} {keep}: {error}");
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(error.to_string().contains(name), "{role} {keep}: {error}");
        }
    }
}

#[test]
fn parts_that_do_not_make_a_model_are_refused_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let full = captioning("a1", 3);
    for (sources, word) in [
        (ImportSources { stage: 3, ..ImportSources::default() }, "eva_vit_g.pth"),
        (ImportSources { checkpoint: None, ..full.clone() }, "TinyGPT-V_for_Stage"),
        (ImportSources { phi: None, ..full.clone() }, "Phi-2"),
        (ImportSources { qformer: None, ..full.clone() }, "blip2_pretrained_flant5xxl.pth"),
        (ImportSources { vit: None, ..full.clone() }, "eva_vit_g.pth"),
        (ImportSources { stage: 5, ..full.clone() }, "stage 5"),
        (ImportSources { dims: Dims { lora: (0, 1.0), ..full.dims.clone() }, ..full }, "LoRA"),
        (ImportSources { retrieval_vocab: None, ..retrieval("b1") }, "vocab.txt"),
    ] {
        let error = run(&sources, &exact(), &folder.path().join("out")).unwrap_err();
        assert!(matches!(error, ImportError::Sources { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn every_weight_type_makes_a_sound_bundle() {
    let sources = captioning("a1", 3);
    let mut prints = Vec::new();
    for weight_type in WeightType::ALL {
        for lora in [Lora::Merge, Lora::Keep] {
            let made = make(&sources, &options(weight_type, lora));
            prints.push(made.bundle.fingerprint().to_owned());
        }
    }
    let again = make(&sources, &options(WeightType::ALL[0], Lora::Merge));
    assert_eq!(again.bundle.fingerprint(), prints[0], "equal imports have equal fingerprints");
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), 2 * WeightType::ALL.len(), "different imports have different ones");
}

#[test]
fn a_bundle_names_its_sources_with_size_and_hash() {
    let made = make(&captioning("a1", 3), &exact());
    let roles: Vec<&str> = made.bundle.sources().iter().map(|s| s.role.as_str()).collect();
    assert_eq!(roles, ["vit", "qformer", "phi", "checkpoint", "phi-tokenizer"]);
    let vit = &made.bundle.sources()[0];
    let bytes = std::fs::read(goldens().join("a1/eva_vit_g.pth")).unwrap();
    assert_eq!((vit.file.as_str(), vit.size), ("eva_vit_g.pth", bytes.len() as u64));
    assert_eq!(vit.blake3, blake3::hash(&bytes).to_hex().as_str());
}

#[test]
fn progress_reaches_the_end_of_both_steps() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = HashMap::new();
    let path = folder.path().join("out");
    import(&captioning("a1", 3), &exact(), &path, &mut |p| {
        let before = last.insert(p.step == ImportStep::Hash, (p.done, p.total));
        assert!(before.is_none_or(|(done, total)| done <= p.done && total == p.total));
    })
    .unwrap();
    assert_eq!(last.len(), 2);
    assert!(last.values().all(|(done, total)| done == total && *total > 0), "{last:?}");
}
