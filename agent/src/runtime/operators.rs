//! The operators of one function, skimmed for what the translator and the interpreter do not bound:
//! how deep blocks nest, and how often memory and tables grow.

use super::sections::Reader;
use super::ModuleError;

/// Blocks within blocks, in one function. The translator keeps some two hundred bytes for each, so 10 MB at
/// most. Go nests one for every resumption point of a function; the most seen are some thousands.
const MAX_NESTING: u32 = 50_000;
/// `memory.grow` and `table.grow` in one function; allocators have one or two.
///
/// These two are the only handlers of wasmi 2.0.0 whose last call is no jump (read in the machine code of
/// the release profile, x86-64: 176 bytes of native stack each), so that the stack grows until the slice
/// ends. Their fuel ([`super::limits::GROW_FUEL`]) bounds how many a slice runs, but a function pays for a
/// whole block when it enters it: one that calls itself and grows after that has paid long before. So at
/// most this many for each of [`super::limits::MAX_RECURSION`] calls, which the interpreter threads' stack holds.
pub const MAX_GROWS: u32 = 8;

/// Checks one function's body: its locals and its code.
pub fn check(reader: &mut Reader<'_>, end: usize) -> Result<(), ModuleError> {
    for _ in 0..reader.u32()? {
        reader.u32()?;
        reader.skip(1)?;
    }
    let (mut depth, mut grows) = (0u32, 0u32);
    while reader.at < end {
        let operator = reader.byte()?;
        match operator {
            0x02..=0x04 => depth = depth.saturating_add(1),
            0x0b => depth = depth.saturating_sub(1),
            0x40 => grows = grows.saturating_add(1),
            _ => {}
        }
        match operator {
            0xfc => grows = grows.saturating_add(u32::from(prefixed(reader)?)),
            _ => {
                if !immediates(reader, operator)? {
                    // Of a proposal that is off: the translator says so, and of which.
                    return Ok(());
                }
            }
        }
        if depth > MAX_NESTING {
            let what = "blocks within blocks in one function";
            return Err(ModuleError::Limit { what, count: depth, limit: MAX_NESTING });
        }
    }
    if grows > MAX_GROWS {
        let what = "memory.grow and table.grow in one function";
        return Err(ModuleError::Limit { what, count: grows, limit: MAX_GROWS });
    }
    Ok(())
}

/// Skips what follows an operator; false where it is not known.
fn immediates(reader: &mut Reader<'_>, operator: u8) -> Result<bool, ModuleError> {
    match operator {
        0x00 | 0x01 | 0x05 | 0x0b | 0x0f | 0x1a | 0x1b | 0x45..=0xc4 | 0xd1 => {}
        // A block type, an index, a signed constant: one LEB128 each.
        0x02..=0x04 | 0x0c | 0x0d | 0x10 | 0x12 | 0x20..=0x26 | 0x3f..=0x42 | 0xd0 | 0xd2 => reader.leb()?,
        // A type and a table; an alignment and an offset.
        0x11 | 0x13 | 0x28..=0x3e => {
            reader.leb()?;
            reader.leb()?;
        }
        // `br_table`: as many labels as it says, and one more.
        0x0e => {
            for _ in 0..=reader.u32()? {
                reader.leb()?;
            }
        }
        // `select` with types.
        0x1c => {
            for _ in 0..reader.u32()? {
                reader.leb()?;
            }
        }
        0x43 => reader.skip(4)?,
        0x44 => reader.skip(8)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Skips an operator of the 0xfc prefix; whether it is `table.grow`.
fn prefixed(reader: &mut Reader<'_>) -> Result<bool, ModuleError> {
    let operator = reader.u32()?;
    let immediates = match operator {
        8 | 10 | 12 | 14 => 2,
        9 | 11 | 13 | 15..=17 => 1,
        _ => 0,
    };
    for _ in 0..immediates {
        reader.leb()?;
    }
    Ok(operator == 15)
}
