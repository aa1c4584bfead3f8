//! What is trained, where additions end up, and what no request may ask for.

use super::{FineTuneError, Length, Request, Result, Validation, write::is_dense};
use crate::{
    model::{
        bundle::{WeightType, tensors_of},
        config::{Config, LanguageConfig},
        registry::Location,
    },
    train::{
        Stage,
        peft::{Additions, Peft},
    },
};

/// Whether a stage trains a tensor of the bundle itself; LoRA is [`Peft::start`]'s.
pub(super) fn learns(stage: Stage, name: &str) -> bool {
    stage.trains(name) && !name.contains(".lora_")
}

/// Numbers that `stage` trains in a model of `config` with `peft`.
pub(super) fn trained(config: &Config, stage: Stage, peft: &Peft) -> u64 {
    let count = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
    let specs = tensors_of(config).into_iter().filter(|spec| learns(stage, &spec.name));
    let own: u64 = specs.map(|spec| count(&spec.shape)).sum();
    let (Some(additions), Some(language)) = (peft.additions(), &config.language) else {
        return own;
    };
    let lengths = matches!(peft, Peft::Dora(_));
    let of_layer = additions.targets.iter().map(|target| {
        let (input, output) = target.sizes(language);
        additions.rank * (input + output) + if lengths { output } else { 0 }
    });
    own + (of_layer.sum::<usize>() * language.layers) as u64
}

/// What a stage trains beside the weights; a LoRA that the model already keeps there goes on.
pub(super) fn default_peft(stage: Stage, language: &LanguageConfig) -> Peft {
    match (stage.published().peft, language.lora_rank, language.lora_scale) {
        (Peft::Lora(additions), Some(rank), Some(scale)) => {
            Peft::Lora(Additions { rank, alpha: scale * rank as f64, ..additions })
        }
        (peft, ..) => peft,
    }
}

/// Whether what is added stays beside the weights of the result.
pub(super) fn keeps(peft: &Peft, weight_type: WeightType, request: &Request) -> Result<bool> {
    let refused = |what: &str| Err(FineTuneError::Adapter(what.to_owned()));
    match peft {
        Peft::Dora(_) if request.keep_lora => {
            refused("a DoRA cannot be kept beside the weights, only merged")
        }
        Peft::Dora(_) if !is_dense(weight_type) => {
            refused("a DoRA must be merged, and these weights are quantised")
        }
        Peft::Lora(_) if request.keep_lora || !is_dense(weight_type) => {
            if peft.fits_beside() {
                Ok(true)
            } else if is_dense(weight_type) {
                refused("a LoRA is kept beside the attention's layers only, both of them")
            } else {
                refused(
                    "beside quantised weights a LoRA stands at the attention's layers only, both \
                     of them",
                )
            }
        }
        _ => Ok(false),
    }
}

/// Greatest batch, number of batches, length of answers and rank: products of two are far from
/// where they would overflow.
const MOST: usize = 1 << 16;

/// Refuses a result that would take the place of what the run reads.
pub(super) fn check_output(request: &Request) -> Result<()> {
    let Ok(output) = request.output.canonicalize() else { return Ok(()) };
    let held = match &request.validation {
        Validation::File(path) => Some(path),
        Validation::Part(_) => None,
    };
    let model = match &request.model {
        Location::File(path) => Some(path),
        Location::BuiltIn => None,
    };
    let read = [model, Some(&request.data), held, request.tokens.as_ref()];
    if read.into_iter().flatten().any(|path| path.canonicalize().is_ok_and(|p| p == output)) {
        return Err(FineTuneError::Overwrites { path: request.output.clone() });
    }
    Ok(())
}

/// Refuses numbers that no run can have.
pub(super) fn check(request: &Request) -> Result<()> {
    let bad = |what, value| Err(FineTuneError::Number { what, value });
    for (what, value) in [
        ("a learning rate", request.rate),
        ("a greatest norm", request.clip),
        ("a number of epochs", request.length.and_then(Length::epochs)),
    ] {
        if let Some(value) = value
            && !(value.is_finite() && value > 0.0)
        {
            return bad(what, value);
        }
    }
    if let Some(decay) = request.weight_decay
        && !(decay.is_finite() && decay >= 0.0)
    {
        return bad("a weight decay", decay);
    }
    for (what, value) in [
        ("a batch", request.batch),
        ("a number of batches", request.accumulate),
        ("a length of answers", request.answer_tokens),
    ] {
        if let Some(value) = value
            && !(1..=MOST).contains(&value)
        {
            return bad(what, value as f64);
        }
    }
    if let Validation::Part(part) = request.validation
        && !(0.0..1.0).contains(&part)
    {
        return bad("a part held out", part);
    }
    if let Some(additions) = request.peft.as_ref().and_then(Peft::additions) {
        let Additions { rank, alpha, dropout, targets } = additions;
        if !(1..=MOST).contains(rank) {
            return bad("a rank", *rank as f64);
        }
        if !(alpha.is_finite() && *alpha > 0.0) {
            return bad("alpha", *alpha);
        }
        if !(0.0..1.0).contains(dropout) {
            return bad("a dropout", *dropout);
        }
        if targets.is_empty() {
            return bad("a number of targets", 0.0);
        }
    }
    Ok(())
}

impl Length {
    fn epochs(self) -> Option<f64> {
        match self {
            Self::Epochs(epochs) => Some(epochs),
            Self::Steps(_) => None,
        }
    }
}
