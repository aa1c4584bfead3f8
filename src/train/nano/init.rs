//! Where the weights of `nano` start.

use candle_core::{Device, Result, Tensor};

use crate::model::{
    bundle::{Role, TensorSpec},
    import::random::Random,
};

/// Output layers of residual branches, whose sum grows with the depth.
const RESIDUAL: [&str; 3] = ["attn.proj.weight", "mlp.fc2.weight", "self_attn.dense.weight"];

/// The start of a tensor: norms at one, biases at zero, linear weights normal with a variance of
/// one over their inputs (those that end a residual branch smaller by the root of twice the
/// depth), tables and tokens normal with a deviation of 0.02, the ViT's positions a code of sines
/// and cosines, the queries such a code with a little noise. The same `seed` and name always give
/// the same values.
///
/// # Errors
///
/// When the device has no room.
pub fn start(spec: &TensorSpec, depth: usize, seed: u64, device: &Device) -> Result<Tensor> {
    let name = spec.name.as_str();
    if name == "vit.pos_embed" {
        return positions(&spec.shape, true, device);
    }
    if name.ends_with("query_tokens") {
        return positions(&spec.shape, false, device)?
            + normal(name, &spec.shape, 0.1, seed, device)?;
    }
    let value = |deviation: f32| normal(name, &spec.shape, deviation, seed, device);
    match spec.role {
        Role::Norm => Tensor::ones(&spec.shape[..], candle_core::DType::F32, device),
        Role::Small if name.ends_with("temp") => Tensor::full(0.07_f32, &spec.shape[..], device),
        Role::Small if name.ends_with("bias") => {
            Tensor::zeros(&spec.shape[..], candle_core::DType::F32, device)
        }
        Role::Small | Role::Table => value(0.02),
        Role::Linear | Role::Head | Role::Lora => {
            let inputs = spec.shape.last().copied().unwrap_or(1).max(1) as f32;
            let residual = RESIDUAL.iter().any(|end| name.ends_with(end));
            let shrink = if residual { (2.0 * depth as f32).sqrt() } else { 1.0 };
            value(1.0 / (inputs.sqrt() * shrink))
        }
    }
}

/// Normal numbers that depend on `name` and `seed` alone.
///
/// # Errors
///
/// When the device has no room.
pub fn normal(
    name: &str,
    shape: &[usize],
    deviation: f32,
    seed: u64,
    device: &Device,
) -> Result<Tensor> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().as_chunks::<8>();
    let mut random = Random(u64::from_le_bytes(first[0]));
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| deviation * random.normal()).collect();
    Tensor::from_vec(values, shape, device)
}

/// Sines and cosines of the places of a square grid over the picture, a quarter of the width
/// each for x and y, in waves of a quarter of the picture to some eight pictures; half as strong
/// as a patch. The class token, where there is one, has none.
///
/// A tower that starts without a code of its places learns y from the backgrounds and forgets x;
/// a query that starts with the code of its place finds the patches there sooner.
fn positions(shape: &[usize], class: bool, device: &Device) -> Result<Tensor> {
    let [_, tokens, width] = *shape else {
        candle_core::bail!("a position table has three dimensions, not {shape:?}");
    };
    let places = tokens - usize::from(class);
    let side = places.isqrt();
    if side * side != places {
        candle_core::bail!("{places} places are no square");
    }
    let waves = width / 4;
    let mut values = if class { vec![0.0_f32; width] } else { Vec::new() };
    for place in 0..places {
        let middle = |cell: usize| (cell as f32 + 0.5) / side as f32;
        for at in [middle(place % side), middle(place / side)] {
            for wave in 0..waves {
                let length = 0.25 * 30.0_f32.powf(wave as f32 / waves as f32);
                let angle = std::f32::consts::TAU * at / length;
                values.extend([0.5 * angle.sin(), 0.5 * angle.cos()]);
            }
        }
    }
    Tensor::from_vec(values, shape, device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::bundle::tensors_of, train::nano::config};

    #[test]
    fn every_tensor_has_a_start_of_its_shape_and_scale() {
        for spec in tensors_of(&config::nano(50, 300)) {
            let start = start(&spec, 4, 1, &Device::Cpu).unwrap();
            assert_eq!(start.dims(), spec.shape, "{}", spec.name);
            let square = start.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
            if spec.role == Role::Linear {
                // One over the root of the inputs, of which there are 100 to 800.
                assert!((0.01..0.12).contains(&square.sqrt()), "{} {square}", spec.name);
            }
            assert!(square.is_finite());
        }
    }

    #[test]
    fn values_depend_on_the_name_and_the_seed() {
        let draw = |name, seed| {
            normal(name, &[4], 1.0, seed, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(draw("a", 1), draw("a", 1));
        assert_ne!(draw("a", 1), draw("b", 1));
        assert_ne!(draw("a", 1), draw("a", 2));
    }
}
