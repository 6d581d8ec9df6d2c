//! The device code that an executable carries, and which of it a GPU takes.

use std::ffi::OsString;

use syncbn_abi::{Image, Images};

use crate::{
    error::{Error, Result},
    gpu::part::GpuPart,
};

/// The lowest compute capability that the compiler makes code for.
const LOWEST: u32 = 80;

/// The kind of image to take, `ptx` or `cubin`, where it is not left to [`choose`].
const KIND_VARIABLE: &str = "SYNCBN_IMAGE";

/// The kinds that an executable may carry.
const KINDS: [&str; 2] = ["ptx", "cubin"];

/// The device code of an executable ([`syncbn_abi::gpu_symbols::IMAGES`]); an error if it was compiled for the
/// emulator alone.
pub(super) fn of(part: &GpuPart) -> Result<&'static [u8]> {
    match &part.model.gpu {
        Some(gpu) if gpu.cuda => Ok(part.images),
        _ => Err(Error::environment("the executable has no code for GPUs")
            .help("compile the network with --target cuda")),
    }
}

/// What `SYNCBN_IMAGE` says; None where it is not set, or empty.
pub(super) fn forced_kind() -> Result<Option<&'static str>> {
    kind_of(std::env::var_os(KIND_VARIABLE))
}

fn kind_of(value: Option<OsString>) -> Result<Option<&'static str>> {
    value
        .filter(|value| !value.is_empty())
        .map(|value| known_kind(&value.to_string_lossy()))
        .transpose()
}

fn known_kind(value: &str) -> Result<&'static str> {
    KINDS.into_iter().find(|kind| *kind == value).ok_or_else(|| {
        let message = format!("{KIND_VARIABLE}={value} is no kind of device code");
        Error::user(message).help(format!("set it to {}, or unset it", KINDS.join(" or ")))
    })
}

/// The image for a GPU of `capability` (such as 90), and its bytes: the latest cubin that the GPU runs, else the
/// latest PTX; or the latest of the kind `forced`.
pub(super) fn choose<'a>(
    blob: &'a [u8],
    capability: u32,
    device: &str,
    forced: Option<&str>,
) -> Result<(Image, &'a [u8])> {
    if capability < LOWEST {
        return Err(Error::environment(format!(
            "{device} has compute capability {}; at least {} is needed",
            dotted(capability),
            dotted(LOWEST)
        )));
    }
    let images = read(blob)?;
    let fits = |image: &Image| {
        image.compute_capability <= capability
            && (image.kind == "ptx" || image.compute_capability / 10 == capability / 10)
    };
    images
        .into_iter()
        .filter(|(image, _)| fits(image) && forced.is_none_or(|kind| image.kind == kind))
        .max_by_key(|(image, _)| (image.kind == "cubin", image.compute_capability))
        .ok_or_else(|| {
            let which = forced.map_or(String::new(), |kind| {
                format!(" as {kind} ({KIND_VARIABLE}={kind})")
            });
            Error::environment(format!(
                "the executable has no device code{which} for {device} of compute capability {}",
                dotted(capability)
            ))
        })
}

/// All images with their bytes.
fn read(blob: &[u8]) -> Result<Vec<(Image, &[u8])>> {
    let malformed = || Error::internal("the executable's device code is malformed");
    let line = blob
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or_else(malformed)?;
    let table: Images = serde_json::from_slice(&blob[..line]).map_err(|_| malformed())?;
    let mut rest = &blob[line + 1..];
    let mut images = Vec::new();
    for image in table.images {
        let (bytes, others) = usize::try_from(image.bytes)
            .ok()
            .and_then(|bytes| rest.split_at_checked(bytes))
            .ok_or_else(malformed)?;
        images.push((image, bytes));
        rest = others;
    }
    Ok(images)
}

fn dotted(capability: u32) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(images: &[(&str, u32)]) -> Vec<u8> {
        let bytes = |(kind, capability): &(&str, u32)| format!("{kind} {capability}").into_bytes();
        let table = Images {
            images: images
                .iter()
                .map(|image| Image {
                    kind: image.0.to_string(),
                    compute_capability: image.1,
                    bytes: bytes(image).len() as u64,
                })
                .collect(),
        };
        let mut blob = serde_json::to_vec(&table).unwrap();
        blob.push(b'\n');
        blob.extend(images.iter().flat_map(bytes));
        blob
    }

    #[test]
    fn the_latest_cubin_of_the_gpus_generation_wins_and_else_ptx() {
        let blob = blob(&[("ptx", 80), ("cubin", 80), ("cubin", 86), ("cubin", 90)]);
        for (capability, expected) in [
            (80, "cubin 80"),
            (86, "cubin 86"),
            (89, "cubin 86"),
            (90, "cubin 90"),
            (100, "ptx 80"),
        ] {
            let (_, bytes) = choose(&blob, capability, "a GPU", None).unwrap();
            assert_eq!(std::str::from_utf8(bytes).unwrap(), expected, "{capability}");
        }
    }

    #[test]
    fn errors_name_the_gpu_and_its_compute_capability() {
        let error = choose(&blob(&[("ptx", 80)]), 75, "Tesla T4", None).unwrap_err();
        assert_eq!(
            error.message,
            "Tesla T4 has compute capability 7.5; at least 8.0 is needed"
        );
        assert_eq!(error.kind, crate::error::Kind::Environment);
        let error = choose(&blob(&[("cubin", 90)]), 86, "RTX A6000", None).unwrap_err();
        assert!(
            error.message.contains("RTX A6000 of compute capability 8.6"),
            "{error}"
        );
    }

    #[test]
    fn a_forced_kind_is_taken_or_missed_by_name() {
        let blob = blob(&[("ptx", 70), ("ptx", 80), ("cubin", 80), ("cubin", 90)]);
        for (kind, capability, expected) in [("ptx", 90, "ptx 80"), ("cubin", 86, "cubin 80")] {
            let (_, bytes) = choose(&blob, capability, "a GPU", Some(kind)).unwrap();
            assert_eq!(std::str::from_utf8(bytes).unwrap(), expected);
        }
        let error = choose(&blob, 120, "a GPU", Some("cubin")).unwrap_err();
        assert_eq!(
            error.message,
            "the executable has no device code as cubin (SYNCBN_IMAGE=cubin) for a GPU of compute capability 12.0"
        );
        assert_eq!(error.kind, crate::error::Kind::Environment);
    }

    #[test]
    fn an_unknown_kind_names_the_variable_and_the_kinds() {
        assert_eq!(kind_of(Some("ptx".into())).unwrap(), Some("ptx"));
        assert_eq!(kind_of(Some("".into())).unwrap(), None, "it is as if not set");
        assert_eq!(kind_of(None).unwrap(), None);
        let error = kind_of(Some("sass".into())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error: SYNCBN_IMAGE=sass is no kind of device code\n  help: set it to ptx or cubin, or unset it"
        );
        assert_eq!(error.kind, crate::error::Kind::User);
    }

    #[test]
    fn malformed_device_code_is_an_error() {
        let mut short = blob(&[("ptx", 80)]);
        short.pop();
        for bad in [&b""[..], b"{}\n", b"nonsense\n", &short] {
            let error = choose(bad, 90, "a GPU", None).unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::Internal, "{error}");
        }
    }
}
