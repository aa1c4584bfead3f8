//! Matrices where they lie: strided views, shared outputs, products by address.

use candle_core::{Error, Layout, Result};

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
    // SAFETY: the caller's; zero and `scale` are gemm's factors of the old and the new.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.0,
            1,
            out.1 as isize,
            false,
            left.0,
            left.2 as isize,
            left.1 as isize,
            right.0,
            right.2 as isize,
            right.1 as isize,
            0.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
