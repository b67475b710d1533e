//! `args_*` and `environ_*`: argv and the environment.

use super::{Args, Host, Memory, Wasi};

/// `args_sizes_get(count, bytes)`
pub fn args_sizes_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    sizes(memory, &host.args, args)
}

/// `args_get(pointers, bytes)`
pub fn args_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    strings(memory, &host.args, args)
}

/// `environ_sizes_get(count, bytes)`
pub fn environ_sizes_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    sizes(memory, &host.env, args)
}

/// `environ_get(pointers, bytes)`
pub fn environ_get(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    strings(memory, &host.env, args)
}

fn sizes(memory: &mut Memory<'_>, list: &[String], args: Args<'_>) -> Wasi<()> {
    let bytes = list.iter().map(|text| text.len().saturating_add(1)).fold(0, usize::saturating_add);
    memory.write_size(args.u32(0), list.len())?;
    memory.write_size(args.u32(1), bytes)
}

fn strings(memory: &mut Memory<'_>, list: &[String], args: Args<'_>) -> Wasi<()> {
    let (mut pointer, mut at) = (args.u32(0), args.u32(1));
    for text in list {
        memory.write_u32(pointer, at)?;
        memory.write(at, text.as_bytes())?;
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        memory.write(at.saturating_add(len), &[0])?;
        at = at.saturating_add(len).saturating_add(1);
        pointer = pointer.saturating_add(4);
    }
    Ok(())
}
