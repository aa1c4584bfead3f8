//! The one list of what a bundle holds: names, shapes and storage of every tensor.
//!
//! Import, check and random bundles all follow it.

use candle_core::quantized::GgmlDType;

use crate::model::config::{Config, LanguageConfig, QFormerConfig, RetrievalConfig, VisionConfig};

/// Rows of quantised weights are padded with zeros to a multiple of this many values: candle's
/// fast kernels need it.
pub const ROW_MULTIPLE: usize = 256;

/// What a tensor is for, which decides how it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Weight `(outputs, inputs)` of a linear layer.
    Linear,
    /// The same, of a layer so small and so near the end that it is never quantised.
    Head,
    /// One of the two low-rank factors of a LoRA.
    Lora,
    /// A table of which single rows are read.
    Table,
    /// Weight of a norm.
    Norm,
    /// Biases, learned tokens and positions.
    Small,
}

/// A tensor that a bundle of some [`Config`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name.
    pub name: String,
    /// Sizes, outermost first, without any padding.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// Whether a bundle may lack it.
    pub optional: bool,
}

/// How the weights of a bundle are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// 32-bit floats: exactly what the published files hold.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// 8 bits and a scale for each 32 weights.
    Q8_0,
    /// 4 bits and a scale for each 32 weights, in the language part.
    Q4_0,
    /// 5 bits and a scale for each 32 weights, in the language part.
    Q5_0,
    /// 4-bit k-quants, in the language part.
    Q4K,
    /// 5-bit k-quants, in the language part.
    Q5K,
    /// 6-bit k-quants, in the language part.
    Q6K,
}

impl WeightType {
    /// Every type, in the order in which a person should be told.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q5_0,
        Self::Q4K,
        Self::Q4_0,
    ];

    /// The name that a person writes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q5_0 => "q5_0",
            Self::Q4K => "q4k",
            Self::Q5K => "q5k",
            Self::Q6K => "q6k",
        }
    }

    fn ggml(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }

    /// How a tensor is stored in a bundle of this type: its type and its shape, in which
    /// the rows of a quantised weight are padded to a multiple of [`ROW_MULTIPLE`].
    ///
    /// Norms, biases, tokens and positions are always f32. Only linear weights are quantised;
    /// of those, the ones of the ViT and the Q-Formers to 8 bits at least: they are a quarter
    /// of the weights, and what they lose every later answer lacks.
    pub fn storage(self, spec: &TensorSpec) -> (GgmlDType, Vec<usize>) {
        let dense = match self {
            Self::F32 => GgmlDType::F32,
            Self::Bf16 => GgmlDType::BF16,
            _ => GgmlDType::F16,
        };
        let quantised = !matches!(self, Self::F32 | Self::F16 | Self::Bf16);
        match spec.role {
            Role::Norm | Role::Small => (GgmlDType::F32, spec.shape.clone()),
            Role::Head if quantised => (GgmlDType::F32, spec.shape.clone()),
            Role::Linear if quantised => {
                let language = spec.name.starts_with("language.");
                let dtype = if language { self.ggml() } else { GgmlDType::Q8_0 };
                (dtype, vec![spec.shape[0], spec.shape[1].next_multiple_of(ROW_MULTIPLE)])
            }
            Role::Linear | Role::Head | Role::Lora | Role::Table => (dense, spec.shape.clone()),
        }
    }
}

impl std::fmt::Display for WeightType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for WeightType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is not a weight type; known are {names}")
        })
    }
}

/// Whether a tensor stored as `dtype` is quantised.
pub(crate) fn is_quantised(dtype: GgmlDType) -> bool {
    !matches!(dtype, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16)
}

/// Every tensor of a bundle of `config`, in the order in which bundles hold them.
///
/// The configuration must pass [`Config::check`]. Names are those of the published files
/// behind the part's prefix: `vit.` as in `eva_vit_g.pth`, `captioner.` and `retrieval.` as
/// in LAVIS' BLIP-2 files, `language.` as in the first Hugging Face layout of Phi-2.
pub fn tensors_of(config: &Config) -> Vec<TensorSpec> {
    let mut list = List::default();
    let width = config.vision.as_ref().map_or(0, |v| v.width);
    if let Some(vision) = &config.vision {
        vit(&mut list.at("vit"), vision);
    }
    if let Some(captioner) = &config.captioner {
        qformer(&mut list.at("captioner"), captioner, width, false);
    }
    if let Some(retrieval) = &config.retrieval {
        let mut at = list.at("retrieval");
        qformer(&mut at, &retrieval.qformer, width, true);
        retrieval_heads(&mut at, retrieval);
    }
    if let (Some(language), Some(captioner)) = (&config.language, &config.captioner) {
        phi(&mut list.at("language"), language, captioner.hidden);
    }
    list.0
}

/// Tensors so far.
#[derive(Default)]
struct List(Vec<TensorSpec>);

impl List {
    fn at(&mut self, prefix: impl Into<String>) -> At<'_> {
        At { list: self, prefix: prefix.into() }
    }
}

/// Adds tensors below a prefix.
struct At<'a> {
    list: &'a mut List,
    prefix: String,
}

impl At<'_> {
    fn pp(&mut self, name: impl std::fmt::Display) -> At<'_> {
        At { prefix: format!("{}.{name}", self.prefix), list: self.list }
    }

    fn push(&mut self, name: &str, shape: &[usize], role: Role) {
        let name = format!("{}.{name}", self.prefix);
        self.list.0.push(TensorSpec { name, shape: shape.to_vec(), role, optional: false });
    }

    fn linear(&mut self, name: &str, input: usize, output: usize) {
        let mut at = self.pp(name);
        at.push("weight", &[output, input], Role::Linear);
        at.push("bias", &[output], Role::Small);
    }

    fn head(&mut self, name: &str, input: usize, output: usize) {
        let mut at = self.pp(name);
        at.push("weight", &[output, input], Role::Head);
        at.push("bias", &[output], Role::Small);
    }

    fn norm(&mut self, name: &str, width: usize) {
        let mut at = self.pp(name);
        at.push("weight", &[width], Role::Norm);
        at.push("bias", &[width], Role::Small);
    }
}

fn vit(at: &mut At<'_>, c: &VisionConfig) {
    let tokens = c.tokens(c.train_size);
    at.push("cls_token", &[1, 1, c.width], Role::Small);
    at.push("pos_embed", &[1, tokens, c.width], Role::Small);
    at.linear("patch_embed.proj", 3 * c.patch * c.patch, c.width);
    for i in 0..c.depth {
        let mut block = at.pp(format_args!("blocks.{i}"));
        block.norm("norm1", c.width);
        block.push("attn.q_bias", &[c.width], Role::Small);
        block.push("attn.v_bias", &[c.width], Role::Small);
        block.push("attn.qkv.weight", &[3 * c.width, c.width], Role::Linear);
        block.linear("attn.proj", c.width, c.width);
        block.norm("norm2", c.width);
        block.linear("mlp.fc1", c.width, c.mlp);
        block.linear("mlp.fc2", c.mlp, c.width);
    }
}

fn qformer(at: &mut At<'_>, c: &QFormerConfig, encoder_width: usize, text: bool) {
    at.norm("ln_vision", encoder_width);
    at.push("query_tokens", &[1, c.queries, c.hidden], Role::Small);
    at.norm("Qformer.bert.embeddings.LayerNorm", c.hidden);
    for i in 0..c.layers {
        let mut layer = at.pp(format_args!("Qformer.bert.encoder.layer.{i}"));
        attention(&mut layer.pp("attention"), c.hidden, c.hidden);
        if QFormerConfig::has_cross_attention(i) {
            attention(&mut layer.pp("crossattention"), c.hidden, encoder_width);
        }
        let sides: &[&str] = if text { &["", "_query"] } else { &["_query"] };
        for side in sides {
            layer.linear(&format!("intermediate{side}.dense"), c.hidden, c.intermediate);
            layer.linear(&format!("output{side}.dense"), c.intermediate, c.hidden);
            layer.norm(&format!("output{side}.LayerNorm"), c.hidden);
        }
    }
}

fn attention(at: &mut At<'_>, hidden: usize, key_width: usize) {
    at.linear("self.query", hidden, hidden);
    at.linear("self.key", key_width, hidden);
    at.linear("self.value", key_width, hidden);
    at.linear("output.dense", hidden, hidden);
    at.norm("output.LayerNorm", hidden);
}

fn retrieval_heads(at: &mut At<'_>, c: &RetrievalConfig) {
    let hidden = c.qformer.hidden;
    let mut embeddings = at.pp("Qformer.bert.embeddings");
    embeddings.push("word_embeddings.weight", &[c.vocabulary, hidden], Role::Table);
    embeddings.push("position_embeddings.weight", &[c.positions, hidden], Role::Table);
    at.head("vision_proj", hidden, c.projection);
    at.head("text_proj", hidden, c.projection);
    at.head("itm_head", hidden, 2);
    at.push("temp", &[1], Role::Small);
    // The Hugging Face file lacks it; it only divided the loss in training.
    if let Some(temp) = at.list.0.last_mut() {
        temp.optional = true;
    }
}

fn phi(at: &mut At<'_>, c: &LanguageConfig, token_width: usize) {
    at.linear("llama_proj", token_width, c.projection_mid);
    at.linear("llama_proj2", c.projection_mid, c.hidden);
    at.push("model.embed_tokens.weight", &[c.vocabulary, c.hidden], Role::Table);
    for i in 0..c.layers {
        let mut layer = at.pp(format_args!("model.layers.{i}"));
        if c.norms.input {
            layer.norm("input_layernorm", c.hidden);
        }
        for (name, output) in
            [("self_attn.query_key_value", 3 * c.hidden), ("self_attn.dense", c.hidden)]
        {
            layer.linear(name, c.hidden, output);
            if let Some(rank) = c.lora_rank {
                let mut at = layer.pp(name);
                at.push("lora_A.weight", &[rank, c.hidden], Role::Lora);
                at.push("lora_B.weight", &[output, rank], Role::Lora);
            }
        }
        if c.norms.query_key {
            layer.norm("self_attn.q_layernorm", c.head_dim());
            layer.norm("self_attn.k_layernorm", c.head_dim());
        }
        if c.norms.post {
            layer.push("post_layernorm.weight", &[c.hidden], Role::Norm);
        }
        layer.linear("mlp.fc1", c.hidden, c.intermediate);
        layer.linear("mlp.fc2", c.intermediate, c.hidden);
    }
    at.norm("model.final_layernorm", c.hidden);
    at.linear("lm_head", c.hidden, c.vocabulary);
}
