//! Branch-free f32 arithmetic that compiles to vector code, and its dispatch.
//!
//! `FMA` says whether the target has fused multiply-add: without it [`f32::mul_add`] would
//! call into the C library for every number.

/// Compiles `body` for each instruction set and gives a function `name` that calls the best.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)?, $body:ident) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $out)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $out)? {
                    $body::<true>($($arg),*)
                }
                if crate::model::kernels::math::has_avx512() {
                    #[expect(unsafe_code, reason = "calls code for the processor just found")]
                    // SAFETY: the processor has every feature that the function enables.
                    return unsafe { avx512($($arg),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
                {
                    #[expect(unsafe_code, reason = "calls code for the processor just found")]
                    // SAFETY: the processor has every feature that the function enables.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(super) use dispatch;

/// Whether the processor has the AVX-512 subsets that [`dispatch`] enables.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("fma")
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// Numbers that are summed side by side: one AVX-512 register.
pub(super) const LANES: usize = 16;

/// `a * b + c`.
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial with `coefficients`, constant first, at `x`.
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        sum = fma::<FMA>(sum, x, coefficients[i]);
    }
    sum
}

/// `e^x` to 2e-7 of itself; arguments are clamped to `[-87, 88]`, NaN stays NaN.
///
/// `x = n ln 2 + r` with an integer `n`; `e^r` is a polynomial interpolated at Chebyshev nodes
/// of `|r| <= ln 2 / 2`, and `2^n` is written into the exponent.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding it leaves the rounded number in the low bits of the sum.
    const SHIFT: f32 = 12_582_912.0;
    // ln 2 in two parts: the first has so few bits that its product with n is exact.
    const LN_2: (f32, f32) = (355.0 / 512.0, -2.121_944_4e-4);
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = fma::<FMA>(n, -LN_2.1, fma::<FMA>(n, -LN_2.0, x));
    let q =
        polynomial::<FMA, 5>(r, [0.5, 0.166_665_77, 0.041_666_555, 0.008_363_173, 0.001_392_617_6]);
    let e_r = fma::<FMA>(r * r, q, r) + 1.0;
    e_r * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// `x P(X <= x)` for a standard normal `X`, the exact GELU, to 1e-6 of itself
/// or 1e-9, whichever is more.
#[inline(always)]
pub(super) fn gelu_erf<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    x.max(0.0) - a * normal_tail::<FMA>(a, exp::<FMA>(-0.5 * a * a))
}

/// The derivative of [`gelu_erf`], `P(X <= x) + x p(x)` with the density `p`, to 1e-6.
#[inline(always)]
pub(super) fn gelu_erf_slope<const FMA: bool>(x: f32) -> f32 {
    const DENSITY_AT_ZERO: f32 = 0.398_942_3;
    let a = x.abs();
    let power = exp::<FMA>(-0.5 * a * a);
    let tail = normal_tail::<FMA>(a, power);
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    fma::<FMA>(x * power, DENSITY_AT_ZERO, below)
}

/// `P(X <= -a)` for `a >= 0`, given `power = e^(-a^2 / 2)`.
///
/// It is `power t p(t)` with `t = 1 / (1 + 0.35 a)` and a polynomial `p` that was interpolated at
/// Chebyshev nodes of `0 <= a <= 14`, off by 4e-8 of itself at most.
#[inline(always)]
fn normal_tail<const FMA: bool>(a: f32, power: f32) -> f32 {
    let t = 1.0 / fma::<FMA>(a, 0.35, 1.0);
    let p = polynomial::<FMA, 9>(
        t,
        [
            0.139_618_71,
            0.139_912_3,
            0.119_444_92,
            0.107_114_59,
            -0.027_046_608,
            0.165_051,
            -0.260_961_23,
            0.146_545_83,
            -0.029_679_522,
        ],
    );
    power * t * p
}

/// GELU by its tanh approximation, as `x / (1 + e^(-2u))` with
/// `u = sqrt(2 / pi) (x + 0.044715 x^3)`, to 2e-6 of itself or 2e-9, whichever is more.
#[inline(always)]
pub(super) fn gelu_tanh<const FMA: bool>(x: f32) -> f32 {
    let u = fma::<FMA>(0.044_715 * x * x, x, x) * SQRT_2_OVER_PI;
    x / (1.0 + exp::<FMA>(-2.0 * u))
}

/// The derivative of [`gelu_tanh`], to 2e-6: with `s = 1 / (1 + e^(-2u))` it is
/// `s + 2 x s (1 - s) u'`.
#[inline(always)]
pub(super) fn gelu_tanh_slope<const FMA: bool>(x: f32) -> f32 {
    let square = x * x;
    let u = fma::<FMA>(0.044_715 * square, x, x) * SQRT_2_OVER_PI;
    let s = 1.0 / (1.0 + exp::<FMA>(-2.0 * u));
    let slope = fma::<FMA>(3.0 * 0.044_715, square, 1.0) * SQRT_2_OVER_PI;
    fma::<FMA>(2.0 * x * slope, s * (1.0 - s), s)
}

/// Sum of `f(x)` over a slice, [`LANES`] at a time.
#[inline(always)]
pub(super) fn sum_of<const FMA: bool>(xs: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += f(chunk[i]);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&x| f(x)).sum::<f32>()
}

/// Dot product of two slices of one length.
#[inline(always)]
pub(super) fn dot<const FMA: bool>(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((l, l_rest), (r, r_rest)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    for (l, r) in l.iter().zip(r) {
        for i in 0..LANES {
            lanes[i] = fma::<FMA>(l[i], r[i], lanes[i]);
        }
    }
    lanes.iter().sum::<f32>() + l_rest.iter().zip(r_rest).map(|(l, r)| l * r).sum::<f32>()
}

/// Turns scores into `e^(score - max)` in place and returns the sum of what it wrote.
#[inline(always)]
pub(super) fn exp_in_place<const FMA: bool>(row: &mut [f32], max: f32) -> f32 {
    for x in row.iter_mut() {
        *x = exp::<FMA>(*x - max);
    }
    sum_of::<FMA>(row, |x| x)
}

/// Greatest of a slice; negative infinity of an empty one.
#[inline(always)]
pub(super) fn max(xs: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = lanes[i].max(chunk[i]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| m.max(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from -20 to 20, close together.
    fn grid() -> impl Iterator<Item = f32> {
        (-200_000..=200_000).map(|i| i as f32 * 1e-4)
    }

    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, floor: f64) -> f64 {
        let error = |x: f32| {
            let exact = exact(f64::from(x));
            (f64::from(f(x)) - exact).abs() / exact.abs().max(floor)
        };
        grid().map(error).fold(0.0, f64::max)
    }

    /// `P(X <= x)` by its series near zero and its continued fraction in the tails.
    fn normal_cdf(x: f64) -> f64 {
        let a = x.abs();
        let density = (-0.5 * a * a).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let tail = if a < 3.0 {
            let (mut term, mut sum) = (a, a);
            for n in 1..80 {
                term *= a * a / f64::from(2 * n + 1);
                sum += term;
            }
            0.5 - density * sum
        } else {
            density / (1..200).rev().fold(a, |deep, n| a + f64::from(n) / deep)
        };
        if x < 0.0 { tail } else { 1.0 - tail }
    }

    #[test]
    fn exp_is_exact_to_2e_7() {
        assert!(worst(exp::<true>, f64::exp, 0.0) < 2e-7);
        assert!(worst(exp::<false>, f64::exp, 0.0) < 2e-7);
    }

    #[test]
    fn exp_clamps_and_keeps_nan() {
        assert!(exp::<true>(f32::NEG_INFINITY) < 2e-38 && exp::<true>(f32::NEG_INFINITY) >= 0.0);
        assert!(exp::<true>(1000.0).is_finite());
        assert!(exp::<false>(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_erf_is_exact_to_1e_6_of_itself() {
        let exact = |x: f64| x * normal_cdf(x);
        assert!(worst(gelu_erf::<true>, exact, 1e-3) < 1e-6);
        assert!(worst(gelu_erf::<false>, exact, 1e-3) < 1e-6);
    }

    #[test]
    fn gelu_tanh_is_exact_to_2e_6_of_itself() {
        let exact = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            x / (1.0 + (-2.0 * u).exp())
        };
        assert!(worst(gelu_tanh::<true>, exact, 1e-3) < 2e-6);
        assert!(worst(gelu_tanh::<false>, exact, 1e-3) < 2e-6);
    }

    #[test]
    fn slopes_are_exact_to_2e_6() {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let exact = |x: f64| normal_cdf(x) + x * density(x);
        assert!(worst(gelu_erf_slope::<true>, exact, 1.0) < 1e-6);
        assert!(worst(gelu_erf_slope::<false>, exact, 1.0) < 1e-6);
        let exact = |x: f64| {
            let scale = (2.0 / std::f64::consts::PI).sqrt();
            let s = 1.0 / (1.0 + (-2.0 * scale * (x + 0.044_715 * x.powi(3))).exp());
            s + 2.0 * x * s * (1.0 - s) * scale * (1.0 + 3.0 * 0.044_715 * x * x)
        };
        assert!(worst(gelu_tanh_slope::<true>, exact, 1.0) < 2e-6);
        assert!(worst(gelu_tanh_slope::<false>, exact, 1.0) < 2e-6);
    }

    #[test]
    fn sums_and_maxima_take_every_number() {
        let xs: Vec<f32> = (0..37_u8).map(|i| f32::from(i) - 5.0).collect();
        let squares: f32 = xs.iter().map(|x| x * x).sum();
        let results = [sum_of::<true>(&xs, |x| x), dot::<true>(&xs, &xs), max(&xs), max(&[])];
        assert_eq!(
            results.map(f32::to_bits),
            [481.0, squares, 31.0, f32::NEG_INFINITY].map(f32::to_bits)
        );
    }
}
