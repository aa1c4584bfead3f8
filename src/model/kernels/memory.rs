//! Matrices where they lie: strided views, shared outputs, products by address.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Error, Layout, Result, Storage, StorageRef, Tensor};

#[cfg(target_arch = "x86_64")]
use super::tile;

/// Rows of a product that are too few to arrange the right matrix for them.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 4;

/// `(batch, tokens, heads, dim)` in memory: each vector is adjacent, the rest has strides.
#[derive(Clone, Copy)]
pub(super) struct View<'a, T> {
    pub(super) data: &'a [T],
    pub(super) batch: usize,
    pub(super) tokens: usize,
    pub(super) heads: usize,
    pub(super) dim: usize,
    /// Distances of rows, tokens and heads.
    pub(super) strides: [usize; 3],
}

impl<'a, T> View<'a, T> {
    pub(super) fn new(data: &'a [T], layout: &Layout) -> Result<Self> {
        let (batch, tokens, heads, dim) = layout.shape().dims4()?;
        let &[by_batch, by_token, by_head, 1] = layout.stride() else {
            return Err(Error::RequiresContiguous { op: "attention" });
        };
        let data = &data[layout.start_offset()..];
        Ok(Self { data, batch, tokens, heads, dim, strides: [by_batch, by_token, by_head] })
    }

    /// The tokens of one head from `first` on, `strides[1]` apart.
    pub(super) fn head(&self, batch: usize, head: usize, first: usize) -> &'a [T] {
        let [by_batch, by_token, by_head] = self.strides;
        &self.data[batch * by_batch + head * by_head + first * by_token..]
    }
}

/// The f32 values of a contiguous tensor on the CPU, which cannot be written meanwhile.
pub(super) struct Held<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl<'a> Held<'a> {
    pub(super) fn new(tensor: &'a Tensor, op: &'static str) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op })?;
        match &*storage {
            Storage::Cpu(CpuStorage::F32(_)) => Ok(Self { storage, range: start..end }),
            _ => candle_core::bail!("{op} takes f32 on the CPU"),
        }
    }
}

impl<'a> Held<'a> {
    /// All of the memory that the tensor, of any layout, is a view of.
    pub(super) fn whole(tensor: &'a Tensor, op: &'static str) -> Result<Self> {
        let (storage, _) = tensor.storage_and_layout();
        let len = match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => values.len(),
            _ => candle_core::bail!("{op} takes f32 on the CPU"),
        };
        Ok(Self { storage, range: 0..len })
    }
}

impl Deref for Held<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            // `new` lets nothing else in.
            _ => &[],
        }
    }
}

/// Memory for numbers that tasks write, which is not filled with zeros first.
pub(super) struct Blank {
    values: Vec<f32>,
    len: usize,
}

impl Blank {
    /// Memory for `len` numbers.
    pub(super) fn new(len: usize) -> Self {
        Self { values: Vec::with_capacity(len), len }
    }

    /// Its beginning.
    pub(super) fn out(&mut self) -> Out {
        Out(self.values.as_mut_ptr())
    }

    /// The numbers.
    ///
    /// # Safety
    ///
    /// Every one of them must have been written.
    #[expect(unsafe_code, reason = "zeros would cross the memory bus only to be written over")]
    pub(super) unsafe fn written(mut self) -> Vec<f32> {
        // SAFETY: the memory is as large, and by the contract every number is written.
        unsafe { self.values.set_len(self.len) };
        self.values
    }
}

/// A place in an output, handed to tasks of which each writes to a part of its own.
#[derive(Clone, Copy)]
pub(super) struct Out(*mut f32);

#[expect(unsafe_code, reason = "tasks write to different parts of one buffer")]
// SAFETY: it is an address only; whoever writes through it keeps to the part of their task.
unsafe impl Send for Out {}
#[expect(unsafe_code, reason = "tasks write to different parts of one buffer")]
// SAFETY: as for `Send`; nothing is read through a shared `Out`.
unsafe impl Sync for Out {}

impl Out {
    /// The beginning of `out`.
    pub(super) fn new(out: &mut [f32]) -> Self {
        Self(out.as_mut_ptr())
    }

    /// The address `offset` numbers on.
    pub(super) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }

    /// The place `offset` numbers on.
    pub(super) fn after(self, offset: usize) -> Self {
        Self(self.at(offset))
    }

    /// `len` numbers from `offset` on.
    ///
    /// # Safety
    ///
    /// They must lie in the memory, be this task's alone and be written before they are read.
    #[expect(unsafe_code, reason = "tasks write to different parts of one buffer")]
    pub(super) unsafe fn part<'a>(self, offset: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset), len) }
    }
}

/// `out = scale left right` with `(m, n, k)`; `left` and `right` are an address, the distance
/// of rows and that of columns, `out` an address and the distance of rows.
///
/// # Safety
///
/// All three matrices must lie in memory that may be read, and for `out` written.
#[expect(unsafe_code, reason = "gemm takes addresses")]
pub(super) unsafe fn product(
    (m, n, k): (usize, usize, usize),
    out: (*mut f32, usize),
    left: (*const f32, usize, usize),
    right: (*const f32, usize, usize),
    scale: f32,
) {
    // SAFETY: the caller's.
    unsafe { products((m, n, k), out, left, right, scale, false) }
}

/// As [`product`], added to what `out` holds.
///
/// # Safety
///
/// As for [`product`]; `out` must hold numbers.
#[expect(unsafe_code, reason = "gemm takes addresses")]
pub(super) unsafe fn add_product(
    (m, n, k): (usize, usize, usize),
    out: (*mut f32, usize),
    left: (*const f32, usize, usize),
    right: (*const f32, usize, usize),
    scale: f32,
) {
    // SAFETY: the caller's.
    unsafe { products((m, n, k), out, left, right, scale, true) }
}

#[expect(unsafe_code, reason = "gemm takes addresses")]
unsafe fn products(
    (m, n, k): (usize, usize, usize),
    out: (*mut f32, usize),
    left: (*const f32, usize, usize),
    right: (*const f32, usize, usize),
    scale: f32,
    add: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if m >= FEW && k > 0 && super::math::has_avx512() {
        // SAFETY: the caller's, and the processor has just been asked.
        return unsafe { tile::product((m, n, k), out, left, right, tile::Into { scale, add }) };
    }
    // SAFETY: the caller's; one and `scale` are gemm's factors of the old, where it is read at
    // all, and of the new.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.0,
            1,
            out.1 as isize,
            add,
            left.0,
            left.2 as isize,
            left.1 as isize,
            right.0,
            right.2 as isize,
            right.1 as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::random;
    use super::*;

    /// The product of two random matrices, each by rows or by columns, against plain sums.
    fn check((m, n, k): (usize, usize, usize), ways: usize, add: bool) -> Result<()> {
        let numbers = |len: usize, seed| random(&[len], seed)?.to_vec1::<f32>();
        let (left, right) = (numbers(m * k, 1)?, numbers(k * n, 2)?);
        // The output is part of a wider one, which stays as it is beside it.
        let (wide, before) = (n + 3, numbers(m * (n + 3), 3)?);
        let mut out = before.clone();
        let left_by = if ways & 1 == 0 { (k, 1) } else { (1, m) };
        let right_by = if ways & 2 == 0 { (n, 1) } else { (1, k) };
        let operands =
            ((left.as_ptr(), left_by.0, left_by.1), (right.as_ptr(), right_by.0, right_by.1));
        #[expect(unsafe_code, reason = "products take addresses")]
        // SAFETY: the vectors are as large as the products need.
        unsafe {
            let of = if add { add_product } else { product };
            of((m, n, k), (out.as_mut_ptr(), wide), operands.0, operands.1, 0.5);
        }
        for (at, (&got, &before)) in out.iter().zip(&before).enumerate() {
            let (row, column) = (at / wide, at % wide);
            let term = |p: usize| {
                let left = left[row * left_by.0 + p * left_by.1];
                f64::from(left) * f64::from(right[p * right_by.0 + column * right_by.1])
            };
            let expected = match (column < n, add) {
                (false, _) => f64::from(before),
                (true, false) => 0.5 * (0..k).map(term).sum::<f64>(),
                (true, true) => f64::from(before) + 0.5 * (0..k).map(term).sum::<f64>(),
            };
            let off = (f64::from(got) - expected).abs();
            assert!(
                off < 2e-5 * (k as f64).sqrt().max(1.0),
                "{m} {n} {k} {ways}: {got} {expected}"
            );
        }
        Ok(())
    }

    #[test]
    fn products_are_sums_whatever_the_order_in_memory() -> Result<()> {
        let sizes = [
            (1, 1, 1),
            (1, 40, 300),
            (5, 7, 0),
            (13, 33, 17),
            (12, 16, 256),
            (23, 65, 257),
            (65, 32, 65),
            (40, 100, 600),
        ];
        for sizes in sizes {
            for ways in 0..4 {
                check(sizes, ways, false)?;
                check(sizes, ways, true)?;
            }
        }
        Ok(())
    }
}
