//! Products of matrices for AVX-512: twice as fast as the `gemm` crate, which keeps to AVX2.
//!
//! The right matrix is copied into panels of [`COLUMNS`] columns that stay in the second-level
//! cache; [`ROWS`] rows of the left one run over them with all sums of a tile in registers. The
//! terms of a sum are added in the order of `k`, whatever the tile, so a number of the result
//! does not depend on how a product is cut into blocks of rows or columns.
//!
//! The method is that of Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication", 2008.

#![expect(unsafe_code, reason = "matrices are addresses with strides, as for the `gemm` crate")]

use std::{
    arch::x86_64::{
        __m512, __mmask16, _mm_load_ss, _mm512_broadcastss_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_permutex2var_ps,
        _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    },
    cell::RefCell,
};

/// Columns of a tile: two registers.
const COLUMNS: usize = 32;
/// Rows of a tile: 24 of the 32 registers are sums.
const ROWS: usize = 12;
/// Terms that are summed before a tile goes back to memory.
const TERMS: usize = 256;

/// An address, the distance of rows and that of columns.
pub(super) type Operand = (*const f32, usize, usize);

/// What becomes of a product: its factor, and whether it is added to what is there.
#[derive(Clone, Copy)]
pub(super) struct Into {
    pub(super) scale: f32,
    pub(super) add: bool,
}

thread_local! {
    /// Some rows of the left matrix and the panels of the right one.
    static PACKED: RefCell<(Vec<f32>, Vec<f32>)> = RefCell::default();
}

/// `out = scale left right`, or that added to `out`, with `(m, n, k)`; `out` is an address and
/// the distance of rows.
///
/// # Safety
///
/// All three matrices must lie in memory that may be read, and for `out` written; if it is added
/// to, `out` must hold numbers. The processor must have what
/// [`has_avx512`](super::math::has_avx512) looks for.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn product(
    (m, n, k): (usize, usize, usize),
    out: (*mut f32, usize),
    left: Operand,
    right: Operand,
    into: Into,
) {
    PACKED.with_borrow_mut(|(rows, panels)| {
        let count = n.div_ceil(COLUMNS);
        for first in (0..k).step_by(TERMS) {
            let terms = TERMS.min(k - first);
            let panel = terms * COLUMNS;
            panels.resize((count * panel).max(panels.len()), 0.0);
            rows.resize((ROWS * terms).max(rows.len()), 0.0);
            for (at, to) in panels.chunks_exact_mut(panel).take(count).enumerate() {
                let from = (step(right, first, at * COLUMNS), right.1, right.2);
                // SAFETY: the columns of this panel, as many as there are, and its own memory.
                unsafe { pack_columns(to, from, terms, COLUMNS.min(n - at * COLUMNS)) };
            }
            let into = Into { add: into.add || first > 0, ..into };
            let mut row = 0;
            while row < m {
                let height = match m - row {
                    ROWS.. => ROWS,
                    8.. => 8,
                    4.. => 4,
                    _ => 1,
                };
                let mut left = (step(left, row, first), left.1, left.2);
                if left.2 != 1 {
                    // SAFETY: the rows are there, and the buffer is as large.
                    unsafe { pack_rows(rows, left, height, terms) };
                    left = (rows.as_ptr(), 1, ROWS);
                }
                for (at, panel) in panels.chunks_exact(panel).take(count).enumerate() {
                    let width = COLUMNS.min(n - at * COLUMNS);
                    let to = (out.0.wrapping_add(row * out.1 + at * COLUMNS), out.1);
                    // SAFETY: `height` rows of the left matrix, a panel of as many terms, and a
                    // tile of the output of `height` rows and `width` columns.
                    unsafe {
                        match (height, width > 16) {
                            (ROWS, true) => tile12::<2>(panel, left, to, width, into),
                            (ROWS, false) => tile12::<1>(panel, left, to, width, into),
                            (8, true) => tile8::<2>(panel, left, to, width, into),
                            (8, false) => tile8::<1>(panel, left, to, width, into),
                            (4, true) => tile4::<2>(panel, left, to, width, into),
                            (4, false) => tile4::<1>(panel, left, to, width, into),
                            (_, true) => tile1::<2>(panel, left, to, width, into),
                            (_, false) => tile1::<1>(panel, left, to, width, into),
                        }
                    }
                }
                row += height;
            }
        }
    });
}

/// The address of a number of a matrix.
fn step((at, by_row, by_column): Operand, row: usize, column: usize) -> *const f32 {
    at.wrapping_add(row * by_row + column * by_column)
}

/// The first `n` of 16 lanes.
fn lanes(n: usize) -> __mmask16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}

/// Copies `terms` rows of `width` columns into a panel, the rest of which becomes zero.
///
/// # Safety
///
/// They must lie in memory, and the panel must have `terms` rows.
#[target_feature(enable = "avx512f")]
unsafe fn pack_columns(panel: &mut [f32], from: Operand, terms: usize, width: usize) {
    let (at, by_row, by_column) = from;
    if by_column == 1 {
        let (first, second) = (lanes(width), lanes(width.saturating_sub(16)));
        for (term, to) in panel.chunks_exact_mut(COLUMNS).enumerate() {
            let from = at.wrapping_add(term * by_row);
            // SAFETY: lanes beyond the width are not read, and `to` has room for both halves.
            unsafe {
                let (low, high) = (
                    _mm512_maskz_loadu_ps(first, from),
                    _mm512_maskz_loadu_ps(second, from.wrapping_add(16)),
                );
                _mm512_storeu_ps(to.as_mut_ptr(), low);
                _mm512_storeu_ps(to.as_mut_ptr().wrapping_add(16), high);
            }
        }
        return;
    }
    if by_row != 1 {
        for (term, to) in panel.chunks_exact_mut(COLUMNS).enumerate() {
            for (column, to) in to.iter_mut().enumerate() {
                let from = step(from, term, column);
                // SAFETY: only columns that are there are read.
                *to = if column < width { unsafe { from.read() } } else { 0.0 };
            }
        }
        return;
    }
    // Columns are adjacent: 16 by 16 are turned over in registers.
    for half in [0, 16] {
        let columns = width.saturating_sub(half).min(16);
        for first in (0..terms).step_by(16) {
            let count = (terms - first).min(16);
            let mut square = [_mm512_setzero_ps(); 16];
            for (column, lane) in square.iter_mut().take(columns).enumerate() {
                // SAFETY: only terms of columns that are there are read.
                *lane = unsafe {
                    _mm512_maskz_loadu_ps(lanes(count), step(from, first, half + column))
                };
            }
            let turned = transpose(square);
            let to = panel[first * COLUMNS..].chunks_exact_mut(COLUMNS);
            for (lane, to) in turned.iter().zip(to).take(count) {
                // SAFETY: half a row of the panel.
                unsafe { _mm512_storeu_ps(to[half..].as_mut_ptr(), *lane) };
            }
        }
    }
}

/// Copies `terms` columns of `height` rows, [`ROWS`] at most, one behind the other.
///
/// # Safety
///
/// They must lie in memory, and `to` must hold [`ROWS`] numbers for each term.
#[target_feature(enable = "avx512f")]
unsafe fn pack_rows(to: &mut [f32], from: Operand, height: usize, terms: usize) {
    for (term, to) in to.chunks_exact_mut(ROWS).take(terms).enumerate() {
        if from.1 == 1 {
            // SAFETY: lanes beyond the height are neither read nor written.
            unsafe {
                let column = _mm512_maskz_loadu_ps(lanes(height), step(from, 0, term));
                _mm512_mask_storeu_ps(to.as_mut_ptr(), lanes(height), column);
            }
        } else {
            for (row, to) in to.iter_mut().take(height).enumerate() {
                // SAFETY: only rows that are there are read.
                *to = unsafe { step(from, row, term).read() };
            }
        }
    }
}

/// A square of 16 by 16 turned over: four times, the two halves of its rows are shuffled into
/// each other.
#[target_feature(enable = "avx512f")]
fn transpose(mut square: [__m512; 16]) -> [__m512; 16] {
    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    for _ in 0..4 {
        let before = square;
        for i in 0..8 {
            square[2 * i] = _mm512_permutex2var_ps(before[i], low, before[i + 8]);
            square[2 * i + 1] = _mm512_permutex2var_ps(before[i], high, before[i + 8]);
        }
    }
    square
}

/// Writes `width` of 16 sums, or adds them to what is there.
///
/// # Safety
///
/// They must lie in memory that may be written, and hold numbers if they are added to.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(sums: __m512, to: *mut f32, width: usize, into: Into) {
    let (lanes, scale) = (lanes(width), _mm512_set1_ps(into.scale));
    // SAFETY: lanes beyond the width are neither read nor written.
    unsafe {
        let sums = if into.add {
            _mm512_fmadd_ps(sums, scale, _mm512_maskz_loadu_ps(lanes, to))
        } else {
            _mm512_mul_ps(sums, scale)
        };
        _mm512_mask_storeu_ps(to, lanes, sums);
    }
}

/// A tile of `$rows` rows and `HALVES` times 16 columns. Everything is unrolled here and not by
/// the compiler, which else keeps the sums in memory in builds with checks.
macro_rules! tile {
    ($name:ident, $rows:literal, $($i:literal)*) => {
        /// # Safety
        ///
        /// `left` must have as many rows and columns as the panel has rows, and `out` as many
        /// rows of `width` columns.
        #[target_feature(enable = "avx512f")]
        unsafe fn $name<const HALVES: usize>(
            panel: &[f32],
            (left, by_row, by_term): Operand,
            (out, by): (*mut f32, usize),
            width: usize,
            into: Into,
        ) {
            let mut sums = [[_mm512_setzero_ps(); 2]; $rows];
            let rows = [$(left.wrapping_add(by_row.wrapping_mul($i)),)*];
            let mut at = 0_usize;
            for right in panel.chunks_exact(COLUMNS) {
                // SAFETY: a row of the panel, and numbers of the left rows.
                unsafe {
                    let right = right.as_ptr();
                    let low = _mm512_loadu_ps(right);
                    let high = if HALVES == 2 { _mm512_loadu_ps(right.wrapping_add(16)) } else { low };
                    $(
                        let left = _mm512_broadcastss_ps(_mm_load_ss(rows[$i].wrapping_add(at)));
                        sums[$i][0] = _mm512_fmadd_ps(left, low, sums[$i][0]);
                        if HALVES == 2 {
                            sums[$i][1] = _mm512_fmadd_ps(left, high, sums[$i][1]);
                        }
                    )*
                }
                at = at.wrapping_add(by_term);
            }
            // SAFETY: the tile lies in the output.
            unsafe {
                $(
                    let to = out.wrapping_add(by.wrapping_mul($i));
                    store(sums[$i][0], to, width, into);
                    if HALVES == 2 {
                        store(sums[$i][1], to.wrapping_add(16), width.wrapping_sub(16), into);
                    }
                )*
            }
        }
    };
}

tile!(tile12, 12, 0 1 2 3 4 5 6 7 8 9 10 11);
tile!(tile8, 8, 0 1 2 3 4 5 6 7);
tile!(tile4, 4, 0 1 2 3);
tile!(tile1, 1, 0);
