//! The objectives on a small random model: gradients, and what must not change a loss.

use candle_core::{Module, Result, Tensor};
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::model::{
    bundle::tests::small_config,
    config::{Config, QFormerConfig},
    eva_vit::EvaVit,
    gradcheck::{Trained, numbers},
    phi::Phi,
    projection::Projection,
    prompt::PromptIds,
    qformer::{QFormer, RetrievalQFormer},
    weights::Weights,
};

/// All parts, with few queries and tokens.
fn config() -> Config {
    let mut config = small_config();
    let smaller = |c: &QFormerConfig| QFormerConfig { queries: 3, image_size: 28, ..c.clone() };
    config.captioner = config.captioner.as_ref().map(smaller);
    if let Some(retrieval) = &mut config.retrieval {
        retrieval.qformer = smaller(&retrieval.qformer);
        retrieval.vocabulary = 40;
        retrieval.positions = 8;
        retrieval.max_text = 8;
    }
    if let Some(vision) = &mut config.vision {
        vision.train_size = 28;
    }
    if let Some(language) = &mut config.language {
        language.vocabulary = 60;
    }
    config
}

/// A random model that trains the retrieval part with its word head.
fn retrieval() -> (Config, Trained) {
    let config = config();
    let mut trained = Trained::random(&config, |name| name.starts_with("retrieval."));
    for spec in WordHead::tensors(config.retrieval.as_ref().unwrap()) {
        trained.insert_random(&spec.name, &spec.shape, 0.3);
    }
    let temp = Tensor::new(&[0.3_f32], &candle_core::Device::Cpu).unwrap();
    trained.insert("retrieval.temp", &temp);
    (config, trained)
}

fn vit(pictures: usize) -> Tensor {
    numbers(pictures * 5 * 48, 3, 0.6).reshape((pictures, 5, 48)).unwrap()
}

fn captions() -> Vec<Vec<u32>> {
    vec![vec![2, 9, 12, 13, 3], vec![2, 10, 3], vec![2, 11, 30, 3], vec![2, 9, 31, 3]]
}

fn scalar(loss: &Tensor) -> f32 {
    loss.to_scalar().unwrap()
}

/// The three losses together, as a step of the first stage computes them.
fn first_stage(config: &Config, w: &Weights, triples: &Triples) -> Result<[Tensor; 3]> {
    let config = config.retrieval.as_ref().unwrap();
    let w = w.pp("retrieval");
    let qformer = RetrievalQFormer::load(config, 48, &w)?;
    let head = WordHead::load(config, &w)?;
    let ids = captions();
    let seen = qformer.see(&vit(3))?;
    let queries = qformer.query(&seen)?;
    let features = qformer.project(&queries.hidden)?;
    let contrast =
        contrastive(&features, &qformer.text_features(&ids)?, &temperature(&w)?, LABEL_SMOOTHING)?;
    let pairs = qformer.pairs(&seen, &triples.pictures, &triples.ids(&ids)?)?;
    let matched = matching(&pairs, &triples.labels)?;
    let own = &ids[..3];
    let next = next_words(&qformer, &head, &queries, &[0, 1, 2], own, 39, LABEL_SMOOTHING)?;
    assert_eq!(next.words, 4 + 2 + 3);
    Ok([contrast.loss, matched.loss, next.loss])
}

fn triples() -> Triples {
    Triples::new(&Negatives {
        texts: vec![Some(3), Some(2), Some(0)],
        pictures: vec![Some(1), Some(2), None],
    })
}

#[test]
fn gradients_of_the_first_stage_agree_with_finite_differences() {
    let (config, trained) = retrieval();
    assert!(trained.names().len() > 60);
    trained.check(|w| {
        let [itc, itm, itg] = first_stage(&config, w, &triples())?;
        (itc + itm)? + itg
    });
}

#[test]
fn gradients_of_the_towers_agree_with_finite_differences() {
    let config = config();
    let trained =
        Trained::random(&config, |name| name.starts_with("vit.") || name.starts_with("captioner."));
    let pixels = numbers(2 * 3 * 28 * 28, 8, 0.5).reshape((2, 3, 28, 28)).unwrap();
    trained.check(|w| {
        let vit = EvaVit::load(config.vision.as_ref().unwrap(), &w.pp("vit"))?.forward(&pixels)?;
        let captioner = QFormer::load(config.captioner.as_ref().unwrap(), 48, &w.pp("captioner"))?;
        let tokens = captioner.forward_image(&vit)?;
        let factors = numbers(tokens.elem_count(), 2, 1.0).reshape(tokens.shape())?;
        // The ViT's own tokens too: behind ln_vision a common factor of theirs has no effect.
        (tokens * factors)?.mean_all()? + (vit.sqr()?.mean_all()? * 0.1)?
    });
}

#[test]
fn negatives_come_from_the_contrast_and_are_never_learned_through() {
    let (config, trained) = retrieval();
    let w = trained.weights().pp("retrieval");
    let qformer = RetrievalQFormer::load(config.retrieval.as_ref().unwrap(), 48, &w).unwrap();
    let features = qformer.image_features(&vit(3)).unwrap();
    let texts = qformer.text_features(&captions()).unwrap();
    let contrast = contrastive(&features, &texts, &temperature(&w).unwrap(), 0.1).unwrap();
    assert!(!contrast.similarity.track_op());
    let mut random = StdRng::seed_from_u64(1);
    let drawn = Negatives::draw(&contrast.similarity, 0.3, &|_, _| false, &mut random).unwrap();
    for own in 0..3 {
        assert!(drawn.texts[own].is_some_and(|text| text != own as u32 && text < 4));
        assert!(drawn.pictures[own].is_some_and(|picture| picture != own as u32 && picture < 3));
    }
}

#[test]
fn words_are_foretold_alike_alone_and_beside_longer_texts() {
    let (config, trained) = retrieval();
    let (config, w) = (config.retrieval.as_ref().unwrap(), trained.weights().pp("retrieval"));
    let qformer = RetrievalQFormer::load(config, 48, &w).unwrap();
    let head = WordHead::load(config, &w).unwrap();
    let queries = qformer.query(&qformer.see(&vit(3)).unwrap()).unwrap();
    let ids = captions();
    let loss = |pictures: &[u32], ids: &[Vec<u32>]| {
        let made = next_words(&qformer, &head, &queries, pictures, ids, 39, 0.1).unwrap();
        f64::from(scalar(&made.loss)) * made.words as f64
    };
    let together = loss(&[0, 1, 1], &ids[..3]);
    let alone: f64 =
        [0, 1, 1].iter().zip(&ids).map(|(p, ids)| loss(&[*p], std::slice::from_ref(ids))).sum();
    assert!((together - alone).abs() < 1e-4, "{together} {alone}");
    let refused = next_words(&qformer, &head, &queries, &[0], &[vec![2]], 39, 0.1);
    assert!(refused.is_err());
}

fn language() -> (Config, Trained) {
    let config = config();
    let trained = Trained::random(&config, |name| name.starts_with("language."));
    (config, trained)
}

fn read(config: &Config, w: &Weights) -> (Phi, Projection) {
    let (config, w) = (config.language.as_ref().unwrap(), w.pp("language"));
    (Phi::load(config, &w).unwrap(), Projection::load(config, 32, &w).unwrap())
}

fn tokens(pictures: usize) -> Tensor {
    numbers(pictures * 3 * 32, 5, 0.5).reshape((pictures, 3, 32)).unwrap()
}

fn prompt(left: &[u32], right: &[u32]) -> PromptIds {
    PromptIds { left: left.to_vec(), right: right.to_vec() }
}

#[test]
fn gradients_of_answers_agree_with_finite_differences() {
    let (config, trained) = language();
    let prompts = [prompt(&[5, 6], &[7, 8]), prompt(&[9], &[10, 11, 12])];
    let examples = [
        Example { picture: 1, prompt: &prompts[0], answer: &[20, 21, 1] },
        Example { picture: 0, prompt: &prompts[1], answer: &[22, 1] },
    ];
    trained.check(|w| {
        let (phi, projection) = read(&config, w);
        answers(&phi, &projection, &tokens(2), &examples, Some(0)).map(|made| made.loss)
    });
}

#[test]
fn a_shared_beginning_changes_neither_loss_nor_gradients() {
    let (config, trained) = language();
    let (phi, projection) = read(&config, &trained.weights());
    let prompts = [prompt(&[5, 6], &[7, 8]), prompt(&[5, 6], &[10]), prompt(&[5, 6], &[3, 4, 5])];
    let answered: [&[u32]; 3] = [&[20, 21, 1], &[1], &[23, 1]];
    let examples: Vec<Example<'_>> = [1, 1, 0]
        .into_iter()
        .zip(prompts.iter().zip(answered))
        .map(|(picture, (prompt, answer))| Example { picture, prompt, answer })
        .collect();
    let shared = answers(&phi, &projection, &tokens(2), &examples, Some(0)).unwrap();
    assert_eq!(shared.tokens, 6);
    // Each alone goes the other way; means over tokens are weighted by their tokens.
    let mut apart = Vec::new();
    for e in &examples {
        let made =
            answers(&phi, &projection, &tokens(2), std::slice::from_ref(e), Some(0)).unwrap();
        apart.push((made.loss * (made.tokens as f64 / 6.0)).unwrap());
    }
    let apart = Tensor::stack(&apart, 0).unwrap().sum_all().unwrap();
    assert!((scalar(&shared.loss) - scalar(&apart)).abs() < 1e-5);
    let (a, b) = (shared.loss.backward().unwrap(), apart.backward().unwrap());
    for name in trained.names() {
        let (a, b) = (a.get(trained.get(name)).unwrap(), b.get(trained.get(name)).unwrap());
        let most = |xs: &Tensor| scalar(&xs.abs().unwrap().flatten_all().unwrap().max(0).unwrap());
        let off = most(&(a - b).unwrap());
        assert!(off <= 1e-4 * most(b) + 1e-8, "{name}: {off} of {}", most(b));
    }
}

#[test]
fn only_the_answer_is_learned() {
    let (config, trained) = language();
    let (phi, projection) = read(&config, &trained.weights());
    let right = prompt(&[5, 6], &[7, 8]);
    let example = Example { picture: 0, prompt: &right, answer: &[20, 1] };
    let made = answers(&phi, &projection, &tokens(1), &[example], Some(0)).unwrap();
    assert_eq!(made.tokens, 2);
    // The same by the way that ranks options.
    let image = projection.forward(&tokens(1)).unwrap().squeeze(0).unwrap();
    let embed = |ids: &[u32]| phi.embed(ids).unwrap();
    let whole = Tensor::cat(&[&embed(&[0, 5, 6]), &image, &embed(&[7, 8])], 0).unwrap();
    let ranked = phi.option_losses(&whole, &[vec![20, 1]]).unwrap()[0];
    assert!((scalar(&made.loss) - ranked).abs() < 1e-5);
    for bad in [
        Example { picture: 1, ..example },
        Example { answer: &[], ..example },
        Example { answer: &[60], ..example },
    ] {
        assert!(answers(&phi, &projection, &tokens(1), &[bad], Some(0)).is_err());
    }
    assert!(answers(&phi, &projection, &tokens(1), &[], Some(0)).is_err());
}

#[test]
fn a_text_is_learned_from_its_first_token_on() {
    let (config, trained) = language();
    let (phi, _) = read(&config, &trained.weights());
    let ids = [vec![5, 6, 7], vec![9]];
    let made = texts(&phi, &ids, 0).unwrap();
    assert_eq!(made.tokens, 4);
    let bos = phi.embed(&[0]).unwrap();
    let alone = phi.option_losses(&bos, &ids).unwrap();
    let expected = (3.0 * alone[0] + alone[1]) / 4.0;
    assert!((scalar(&made.loss) - expected).abs() < 1e-5);
    assert!(texts(&phi, &[vec![]], 0).is_err());
    let trained = Trained::random(&config, |name| {
        name.starts_with("language.model.") || name.starts_with("language.lm_head.")
    });
    trained.check(|w| texts(&read(&config, w).0, &ids, 0).map(|made| made.loss));
}
