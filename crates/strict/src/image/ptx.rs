//! PTX: the parameters and directives of its entries.

use super::Kernel;

/// The kernels of a text.
pub fn read(text: &str, capability: u32) -> Result<Vec<Kernel>, String> {
    let target = text
        .split_once(".target sm_")
        .map(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap_or_default()
        })
        .and_then(|digits| digits.parse::<u32>().ok())
        .ok_or("the image is neither a cubin nor PTX with a target")?;
    if target > capability {
        return Err(format!("PTX for {target} on a GPU of {capability}"));
    }
    text.split(".entry ").skip(1).map(entry).collect()
}

/// A kernel from the text after `.entry`.
fn entry(text: &str) -> Result<Kernel, String> {
    let (name, rest) = text.split_once('(').ok_or("an entry without parameters")?;
    let name = name.trim();
    let malformed = || format!("the entry {name} is malformed");
    let (parameters, rest) = rest.split_once(')').ok_or_else(malformed)?;
    let (directives, body) = rest.split_once('{').ok_or_else(malformed)?;
    let mut sizes = Vec::new();
    for parameter in parameters.split(".param").skip(1) {
        sizes.push(size(parameter).ok_or_else(malformed)?);
    }
    let threads = [".maxntid", ".reqntid"].iter().find_map(|directive| {
        let (_, rest) = directives.split_once(directive)?;
        let line = rest.lines().next()?;
        let numbers = line.split(',').map(|word| word.trim().parse::<u32>().ok());
        numbers
            .collect::<Option<Vec<u32>>>()
            .map(|numbers| numbers.iter().product())
    });
    Ok(Kernel {
        name: name.into(),
        parameters: sizes,
        threads,
        shared: shared(body),
    })
}

/// Bytes of a parameter: ` .u64 .ptr .global .align 16 name_param_0,` or ` .align 4 .b8 name_param_6[12]`.
fn size(parameter: &str) -> Option<u32> {
    if let Some((_, rest)) = parameter.split_once('[') {
        return rest.split(']').next()?.trim().parse().ok();
    }
    let mut words = parameter.split_whitespace().filter(|word| word.starts_with('.'));
    let bits = words.find_map(|word| {
        word.trim_start_matches(['.', 'u', 's', 'b', 'f'])
            .parse::<u32>()
            .ok()
    })?;
    Some(bits / 8)
}

/// Bytes of the shared variables in a body.
fn shared(body: &str) -> u32 {
    let lines = body
        .lines()
        .filter(|line| line.trim_start().starts_with(".shared"));
    lines
        .filter_map(|line| line.split_once('[')?.1.split(']').next()?.parse::<u32>().ok())
        .sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str = "\
.version 8.0
.target sm_80
.address_size 64
.visible .entry conv_0(
\t.param .u64 .ptr .global .align 16 conv_0_param_0,
\t.param .u32 conv_0_param_1,
\t.param .u64 conv_0_param_2,
\t.param .align 4 .b8 conv_0_param_3[20]
)
.maxntid 128, 1, 1
{
\t.shared .align 16 .b8 fixed[64];
\tret;
}
.visible .entry update(
\t.param .u64 .ptr .align 1 update_param_0
)
{
}
";

    #[test]
    fn entries_are_read() {
        let kernels = read(TEXT, 90).unwrap();
        let first = Kernel {
            name: "conv_0".into(),
            parameters: vec![8, 4, 8, 20],
            threads: Some(128),
            shared: 64,
        };
        let second = Kernel {
            name: "update".into(),
            parameters: vec![8],
            threads: None,
            shared: 0,
        };
        assert_eq!(kernels, [first, second]);
        assert!(read(TEXT, 75).unwrap_err().contains("PTX for 80"));
        assert!(read("code", 90).is_err());
    }
}
