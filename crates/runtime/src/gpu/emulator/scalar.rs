//! Intrinsics of one thread: roundings and approximate functions. Each function here is more accurate than the
//! instruction that it stands for.

/// Rounds to tf32, ties away from zero.
fn round_tf32(x: f32) -> u32 {
    if x.is_nan() {
        0x7fff_ffff
    } else {
        (x.to_bits() + 0x1000) & !0x1fff
    }
}

/// A result smaller than the smallest normal number becomes 0, as `.ftz` says.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

fn exp2(x: f32) -> f32 {
    libm::exp2(f64::from(x)) as f32
}

fn log2(x: f32) -> f32 {
    libm::log2(f64::from(x)) as f32
}

fn reciprocal(x: f32) -> f32 {
    1.0 / x
}

fn reciprocal_root(x: f32) -> f32 {
    (1.0 / f64::from(x).sqrt()) as f32
}

macro_rules! functions {
    ($($function:ident: $name:ident $flushed:ident;)*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(arguments: *const f32, result: *mut f32) {
            // SAFETY: one f32 each.
            unsafe { result.write_unaligned($function(arguments.read_unaligned())) };
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn $flushed(arguments: *const f32, result: *mut f32) {
            // SAFETY: one f32 each.
            unsafe { result.write_unaligned(flush($function(flush(arguments.read_unaligned())))) };
        }
    )* };
}

functions! {
    exp2: syncbn_emu_ex2_approx_f syncbn_emu_ex2_approx_ftz_f;
    exp2: syncbn_emu_ex2_approx_f32 syncbn_emu_ex2_approx_ftz_f32;
    log2: syncbn_emu_lg2_approx_f syncbn_emu_lg2_approx_ftz_f;
    reciprocal: syncbn_emu_rcp_approx_f syncbn_emu_rcp_approx_ftz_f;
    reciprocal_root: syncbn_emu_rsqrt_approx_f syncbn_emu_rsqrt_approx_ftz_f;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn syncbn_emu_f2tf32_rna(arguments: *const f32, result: *mut u32) {
    // SAFETY: one f32, and one word.
    unsafe { result.write_unaligned(round_tf32(arguments.read_unaligned())) };
}

/// Rounds to bf16, ties to even. The compiler calls it on processors without an instruction for it, and wants
/// the result in the low half of a float register.
#[unsafe(no_mangle)]
extern "C" fn __truncsfbf2(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = if x.is_nan() {
        bits >> 16 | 0x40
    } else {
        (bits + 0x7fff + (bits >> 16 & 1)) >> 16
    };
    f32::from_bits(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_tf32_keeps_ten_bits_and_ties_go_away_from_zero() {
        assert_eq!(f32::from_bits(round_tf32(1.0)), 1.0);
        assert_eq!(f32::from_bits(round_tf32(1.0 + 1.0 / 2048.0)), 1.0 + 1.0 / 1024.0);
        assert_eq!(
            f32::from_bits(round_tf32(-1.0 - 1.0 / 2048.0)),
            -1.0 - 1.0 / 1024.0
        );
        assert_eq!(f32::from_bits(round_tf32(1.0 + 1.0 / 4096.0)), 1.0);
        assert_eq!(f32::from_bits(round_tf32(f32::NEG_INFINITY)), f32::NEG_INFINITY);
        assert!(f32::from_bits(round_tf32(-f32::NAN)).is_nan());
    }

    #[test]
    fn rounding_to_bf16_ties_to_even() {
        let bf16 = |x: f32| f32::from_bits(__truncsfbf2(x).to_bits() << 16);
        assert_eq!(bf16(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(bf16(1.0 + 3.0 / 256.0), 1.0 + 1.0 / 64.0);
        assert_eq!(bf16(1.0 + 1.1 / 256.0), 1.0 + 1.0 / 128.0);
        assert_eq!(bf16(f32::MAX), f32::INFINITY);
        assert!(bf16(f32::NAN).is_nan());
    }

    #[test]
    fn approximate_functions_flush_only_where_they_say() {
        let call = |function: unsafe extern "C" fn(*const f32, *mut f32), x: f32| {
            let mut y = 0.0;
            // SAFETY: one f32 each.
            unsafe { function(&x, &mut y) };
            y
        };
        assert_eq!(call(syncbn_emu_ex2_approx_f, -130.0), f32::from_bits(1 << 19));
        assert_eq!(call(syncbn_emu_ex2_approx_ftz_f, -130.0), 0.0);
        assert_eq!(call(syncbn_emu_rsqrt_approx_ftz_f, 4.0), 0.5);
        assert_eq!(call(syncbn_emu_rcp_approx_ftz_f, 4.0), 0.25);
        assert_eq!(call(syncbn_emu_lg2_approx_f, 8.0), 3.0);
    }
}
