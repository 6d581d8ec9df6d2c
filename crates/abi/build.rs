//! Names the symbol that ties a model object to the runtime it was compiled for: its name carries a hash
//! of this crate's source, so that a stale archive fails at link instead of at run time.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    let files: io::Result<Vec<_>> = fs::read_dir("src")?.map(|file| Ok(file?.path())).collect();
    let mut files = files?;
    files.sort();
    let source: io::Result<Vec<_>> = files.iter().map(fs::read).collect();
    let source = source?.concat();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in source {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let symbol = format!("syncbn_abi_{hash:016x}");
    let text = format!(
        "/// The symbol that the runtime exports and every model object refers to; its name carries an FNV-1a\n\
         /// hash of this crate's source.\n\
         pub const ABI_SYMBOL: &str = \"{symbol}\";\n\
         /// What [`ABI_SYMBOL`] names. Its value means nothing.\n\
         #[unsafe(export_name = \"{symbol}\")]\n\
         #[used]\n\
         pub static ABI_MARK: u8 = 1;\n"
    );
    let folder = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&folder).join("symbol.rs"), text)
}
