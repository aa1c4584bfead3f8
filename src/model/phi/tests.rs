use candle_core::{Device, IndexOp};

use super::*;
use crate::model::{
    bundle::{Bundle, WeightType, tensors_of, tests::small_config},
    config::{Config, Norms},
    generate::LanguageModel,
    gradcheck::{Trained, numbers},
    import::random::{Tokenizers, write_random},
};

fn phi(weight_type: WeightType) -> Phi {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.gguf");
    write_random(&small_config(), weight_type, 5, &path, Tokenizers::default()).unwrap();
    let bundle = Bundle::open(&path).unwrap();
    let config = bundle.config().language.clone().unwrap();
    Phi::load(&config, &bundle.weights(&Device::Cpu, DType::F32).pp("language")).unwrap()
}

fn error(left: &Tensor, right: &Tensor) -> f32 {
    assert_eq!(left.dims(), right.dims());
    let most = |xs: &Tensor| xs.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
    most(&(left - right).unwrap()).unwrap() / most(right).unwrap()
}

/// Logits `(tokens, vocabulary)` of a single sequence.
fn alone(phi: &Phi, ids: &[u32]) -> Tensor {
    let embeds = phi.embed(ids).unwrap().unsqueeze(0).unwrap();
    let xs = phi.forward(&embeds, &mut phi.cache(&[0])).unwrap();
    phi.logits(&xs).unwrap().squeeze(0).unwrap()
}

fn ids(n: u32) -> Vec<u32> {
    (0..n).map(|i| i * 37 % 448).collect()
}

#[test]
fn tokens_one_by_one_give_what_all_at_once_give() {
    let phi = phi(WeightType::F32);
    let ids = ids(80); // longer than the cache grows at once
    let expected = alone(&phi, &ids);
    let mut cache = phi.cache(&[0]);
    for (at, &id) in ids.iter().enumerate() {
        let embeds = phi.embed(&[id]).unwrap().unsqueeze(0).unwrap();
        let logits = phi.next_logits(&embeds, &mut cache).unwrap();
        assert!(error(&logits, &expected.i(at..=at).unwrap()) < 1e-5, "token {at}");
    }
    assert_eq!(cache.len(), 80);
}

#[test]
fn a_row_of_a_padded_batch_equals_the_row_alone() {
    for weight_type in [WeightType::F32, WeightType::F16, WeightType::Q8_0] {
        let phi = phi(weight_type);
        let prompts = [ids(3), ids(9), ids(6)];
        let embeds = prompts.each_ref().map(|ids| phi.embed(ids).unwrap());
        let mut session = Session::new(&phi);
        let first = session.prefill(&embeds).unwrap();
        session.select(&[2, 0]).unwrap();
        let second = session.step(&[11, 12]).unwrap();
        for (row, ids) in prompts.iter().enumerate() {
            let expected = alone(&phi, ids).i(ids.len() - 1).unwrap();
            assert!(error(&first.i(row).unwrap(), &expected) < 1e-5);
        }
        for (row, (prompt, id)) in [(&prompts[2], 11), (&prompts[0], 12)].into_iter().enumerate() {
            let longer: Vec<u32> = prompt.iter().copied().chain([id]).collect();
            let expected = alone(&phi, &longer).i(prompt.len()).unwrap();
            assert!(error(&second.i(row).unwrap(), &expected) < 1e-5);
        }
    }
}

#[test]
fn prompts_after_a_shared_prefix_equal_whole_prompts() {
    let phi = phi(WeightType::F32);
    let (prefix, tails) = (ids(5), [vec![7, 8, 9], vec![30]]);
    let mut cache = phi.cache(&[0]);
    let embeds = phi.embed(&prefix).unwrap().unsqueeze(0).unwrap();
    phi.forward(&embeds, &mut cache).unwrap();
    // Twice: the first batch must not have written into the prefix.
    for tails in [&tails[..], &tails[1..], &tails[..]] {
        let mut session = Session::after(&phi, &cache).unwrap();
        let embeds: Vec<Tensor> = tails.iter().map(|ids| phi.embed(ids).unwrap()).collect();
        let logits = session.prefill(&embeds).unwrap();
        for (row, tail) in tails.iter().enumerate() {
            let whole: Vec<u32> = prefix.iter().chain(tail).copied().collect();
            let expected = alone(&phi, &whole).i(whole.len() - 1).unwrap();
            assert!(error(&logits.i(row).unwrap(), &expected) < 1e-5);
        }
    }
}

#[test]
fn a_batch_with_another_number_of_rows_than_its_cache_is_refused() {
    let phi = phi(WeightType::F32);
    let embeds = phi.embed(&[1, 2]).unwrap().unsqueeze(0).unwrap();
    assert!(phi.forward(&embeds, &mut phi.cache(&[0, 0])).is_err());
    assert!(phi.cache(&[0]).select(&[1]).is_err());
}

#[test]
fn eight_bits_stay_near_full_precision() {
    let (exact, quantized) = (phi(WeightType::F32), phi(WeightType::Q8_0));
    let (expected, got) = (alone(&exact, &ids(6)), alone(&quantized, &ids(6)));
    let off = error(&got, &expected);
    assert!(off < 0.05 && off > 1e-5, "{off}");
}

#[test]
fn the_loss_of_an_option_in_a_batch_is_that_of_the_whole_sequence() {
    let phi = phi(WeightType::F32);
    let prompt = ids(4);
    let options = [vec![5], vec![6, 7, 300], vec![9, 8]];
    let losses = phi.option_losses(&phi.embed(&prompt).unwrap(), &options).unwrap();
    for (option, loss) in options.iter().zip(losses) {
        let whole: Vec<u32> = prompt.iter().chain(option).copied().collect();
        let logits = alone(&phi, &whole).narrow(0, 3, option.len()).unwrap();
        let rows = candle_nn::ops::log_softmax(&logits, 1).unwrap().to_vec2::<f32>().unwrap();
        let sum: f32 = rows.iter().zip(option).map(|(row, &id)| -row[id as usize]).sum();
        assert!((loss - sum / option.len() as f32).abs() < 1e-4);
    }
    assert!(phi.option_losses(&phi.embed(&prompt).unwrap(), &[vec![]]).is_err());
}

#[test]
fn whole_sequences_give_what_the_cache_gives() {
    let phi = phi(WeightType::F32);
    let sequences = [ids(9), ids(5)];
    // The shorter one is padded on the right with what nobody sees.
    let padded: Vec<u32> = sequences[1].iter().copied().chain([400; 4]).collect();
    let embeds =
        Tensor::stack(&[phi.embed(&sequences[0]).unwrap(), phi.embed(&padded).unwrap()], 0);
    let xs = phi.forward_whole(&embeds.unwrap()).unwrap();
    for (row, ids) in sequences.iter().enumerate() {
        let got = phi.logits(&xs.i((row, ..ids.len())).unwrap()).unwrap();
        assert!(error(&got, &alone(&phi, ids)) < 1e-5);
    }
}

#[test]
fn sequences_behind_a_prefix_equal_whole_ones() {
    let phi = phi(WeightType::F32);
    let prefixes = [ids(4), vec![9, 8, 7, 6]];
    let embeds = prefixes.each_ref().map(|ids| phi.embed(ids).unwrap());
    let (_, prefix) = phi.forward_prefix(&Tensor::stack(&embeds, 0).unwrap()).unwrap();
    assert_eq!((prefix.rows(), prefix.tokens()), (2, 4));
    for (rows, tails) in
        [(vec![1, 0, 1], vec![[1, 2, 3], [4, 5, 6], [7, 8, 9]]), (vec![0, 1], vec![[3; 3], [4; 3]])]
    {
        let embeds: Vec<Tensor> = tails.iter().map(|ids| phi.embed(ids).unwrap()).collect();
        let xs = phi.forward_after(&prefix, &rows, &Tensor::stack(&embeds, 0).unwrap()).unwrap();
        for (row, tail) in tails.iter().enumerate() {
            let whole: Vec<u32> =
                prefixes[rows[row] as usize].iter().chain(tail).copied().collect();
            let got = phi.logits(&xs.i(row).unwrap()).unwrap();
            assert!(error(&got, &alone(&phi, &whole).i(4..).unwrap()) < 1e-5);
        }
    }
    let one = phi.embed(&[1]).unwrap().unsqueeze(0).unwrap();
    assert!(phi.forward_after(&prefix, &[2], &one).is_err());
    assert!(phi.forward_after(&prefix, &[0, 1], &one).is_err());
}

#[test]
fn each_norm_can_be_left_out() {
    let all = small_config();
    let language = all.language.clone().unwrap();
    let expected = tensors_of(&all).len();
    let without = |norms: Norms| {
        let language = LanguageConfig { norms, ..language.clone() };
        let config = Config { language: Some(language), ..all.clone() };
        // Tensors of the norms that are there are the same, by name, in every bundle.
        let trained = Trained::random(&config, |name| name.starts_with("language.model."));
        (tensors_of(&config).len(), config, trained)
    };
    let on = Norms::default();
    for (norms, gone) in [
        (on, 0),
        (Norms { input: false, ..on }, 2),
        (Norms { post: false, ..on }, 1),
        (Norms { query_key: false, ..on }, 4),
        (Norms { input: false, post: false, query_key: false }, 7),
    ] {
        let (tensors, config, trained) = without(norms);
        let language = config.language.as_ref().unwrap();
        assert_eq!(tensors, expected - gone * language.layers);
        let phi = Phi::load(language, &trained.weights().pp("language")).unwrap();
        let whole = {
            let embeds = phi.embed(&ids(6)).unwrap().unsqueeze(0).unwrap();
            let xs = phi.forward_whole(&embeds).unwrap();
            phi.logits(&xs).unwrap().squeeze(0).unwrap()
        };
        assert!(error(&whole.detach(), &alone(&phi, &ids(6)).detach()) < 1e-5, "{norms:?}");
    }
}

#[test]
fn gradients_without_norms_agree_with_finite_differences() {
    let mut config = small_config();
    if let Some(language) = &mut config.language {
        language.norms = Norms { input: false, post: false, query_key: false };
        language.vocabulary = 60;
    }
    let trained = Trained::random(&config, |name| {
        name.starts_with("language.model.") && !name.contains("final_layernorm")
    });
    trained.check(|w| {
        let phi = Phi::load(config.language.as_ref().unwrap(), &w.pp("language"))?;
        let embeds = phi.embed(&[3, 50, 7, 9])?.unsqueeze(0)?;
        let xs = phi.forward_whole(&embeds)?;
        (&xs * numbers(xs.elem_count(), 2, 1.0).reshape(xs.shape())?)?.mean_all()
    });
}
