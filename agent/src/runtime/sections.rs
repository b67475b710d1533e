//! The sections of a module, read before wasmi sees it: limits on what they may declare, and the start
//! function turned into an export, so that it can run in slices like any other.

use std::ops::Range;

use super::{operators, ModuleError};

/// Largest module. The largest Go program seen has 17.7 MB and needs 60 MB translated.
pub const MAX_MODULE: usize = 32 << 20;
/// Largest body of one function. Go's and CPython's largest have some hundred kB.
pub const MAX_BODY: u32 = 2 << 20;
/// The name under which a start function is exported.
pub const START_EXPORT: &str = "copepod:start";
/// Bytes of a page of linear memory.
const PAGE: u64 = 64 * 1024;

/// What each section may declare at most: several times what the largest Go program does. Without a
/// limit, a few MB of empty declarations become hundreds once they are parsed.
const MAX_ITEMS: [(u8, &str, u32); 10] = [
    (1, "types", 10_000),
    (2, "imports", 1_000),
    (3, "functions", 100_000),
    (4, "tables", 16),
    (5, "memories", 1),
    (6, "globals", 10_000),
    (7, "exports", 10_000),
    (9, "element segments", 10_000),
    (10, "function bodies", 100_000),
    (11, "data segments", 100_000),
];

const MEMORY: u8 = 5;
const EXPORT: u8 = 7;
const START: u8 = 8;
const CODE: u8 = 10;
const DATA: u8 = 11;

const HEADER: [u8; 8] = *b"\0asm\x01\0\0\0";
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// A data segment that is copied to a fixed place of linear memory when a guest begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it goes.
    pub at: usize,
    /// Where in the module its bytes are.
    pub bytes: Range<usize>,
}

/// A module's sections.
#[derive(Debug)]
pub struct Sections<'a> {
    bytes: &'a [u8],
    found: Vec<(u8, Range<usize>)>,
    start: Option<u32>,
    /// Bytes of linear memory that it starts with.
    pub initial_memory: u64,
    /// Its data segments, as far as they are of the usual kind.
    pub data: Vec<Segment>,
}

impl<'a> Sections<'a> {
    /// Reads the outline of `bytes`.
    ///
    /// # Errors
    /// When they are not a core module, or it declares more than the limits allow.
    pub fn read(bytes: &'a [u8]) -> Result<Sections<'a>, ModuleError> {
        if bytes.len() > MAX_MODULE {
            return Err(ModuleError::TooLarge { size: bytes.len(), limit: MAX_MODULE });
        }
        match bytes.get(..HEADER.len()) {
            Some(header) if header == HEADER => {}
            Some(header) if header == COMPONENT => return Err(ModuleError::Component),
            _ => return Err(ModuleError::NotWasm),
        }
        let mut sections =
            Sections { bytes, found: Vec::new(), start: None, initial_memory: 0, data: Vec::new() };
        let mut reader = Reader { bytes, at: HEADER.len() };
        while reader.at < bytes.len() {
            let id = reader.byte()?;
            let len = reader.size()?;
            let body = reader.at..reader.at.saturating_add(len);
            if body.end > bytes.len() {
                return Err(truncated(reader.at));
            }
            sections.section(id, &body)?;
            sections.found.push((id, body.clone()));
            reader.at = body.end;
        }
        Ok(sections)
    }

    fn section(&mut self, id: u8, body: &Range<usize>) -> Result<(), ModuleError> {
        let bytes = self.bytes.get(..body.end).unwrap_or(self.bytes);
        let mut reader = Reader { bytes, at: body.start };
        if id == START {
            self.start = Some(reader.u32()?);
        }
        let Some((_, what, limit)) = MAX_ITEMS.iter().find(|(known, ..)| *known == id) else {
            return Ok(());
        };
        let count = reader.u32()?;
        if count > *limit {
            return Err(ModuleError::Limit { what, count, limit: *limit });
        }
        match id {
            MEMORY if count > 0 => {
                let _flags = reader.byte()?;
                self.initial_memory = reader.u64()?.saturating_mul(PAGE);
            }
            CODE => {
                for _ in 0..count {
                    let size = reader.u32()?;
                    if size > MAX_BODY {
                        let what = "bytes in one function's body";
                        return Err(ModuleError::Limit { what, count: size, limit: MAX_BODY });
                    }
                    let end = reader.at.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
                    operators::check(&mut reader, end)?;
                    reader.at = end;
                }
            }
            DATA => self.data = data(&mut reader, count).unwrap_or_default(),
            _ => {}
        }
        Ok(())
    }

    /// The module without its start section, and with its start function exported as [`START_EXPORT`];
    /// none where it has no start function.
    pub fn with_start_exported(&self) -> Option<Vec<u8>> {
        let start = self.start?;
        let mut exported = false;
        let mut module = Vec::with_capacity(self.bytes.len().saturating_add(START_EXPORT.len() + 16));
        module.extend_from_slice(&HEADER);
        for (id, body) in &self.found {
            let body = self.bytes.get(body.clone()).unwrap_or(&[]);
            match *id {
                EXPORT => {
                    section(&mut module, EXPORT, &with_export(body, start));
                    exported = true;
                }
                // The export section, if there is one, comes before the start section.
                START if !exported => section(&mut module, EXPORT, &with_export(&[0], start)),
                START => {}
                id => section(&mut module, id, body),
            }
        }
        Some(module)
    }
}

/// Segments as every compiler writes them: for memory 0, at a constant (`i32.const`). One of another kind ends the
/// list: nothing depends on what comes after it.
fn data(reader: &mut Reader<'_>, count: u32) -> Result<Vec<Segment>, ModuleError> {
    let mut segments = Vec::new();
    for _ in 0..count {
        if reader.u32()? != 0 || reader.byte()? != 0x41 {
            break;
        }
        let at = reader.address()?;
        if reader.byte()? != 0x0b {
            break;
        }
        let len = reader.size()?;
        let bytes = reader.at..reader.at.saturating_add(len);
        reader.skip(len)?;
        segments.push(Segment { at, bytes });
    }
    Ok(segments)
}

fn section(module: &mut Vec<u8>, id: u8, body: &[u8]) {
    module.push(id);
    write_u32(module, u32::try_from(body.len()).unwrap_or(u32::MAX));
    module.extend_from_slice(body);
}

/// An export section's body with one function more. A count that cannot be read is left for wasmi to refuse.
fn with_export(body: &[u8], function: u32) -> Vec<u8> {
    let mut reader = Reader { bytes: body, at: 0 };
    let count = reader.u32().unwrap_or(u32::MAX - 1);
    let mut more = Vec::with_capacity(body.len().saturating_add(START_EXPORT.len() + 16));
    write_u32(&mut more, count.saturating_add(1));
    more.extend_from_slice(body.get(reader.at..).unwrap_or(&[]));
    write_u32(&mut more, u32::try_from(START_EXPORT.len()).unwrap_or(0));
    more.extend_from_slice(START_EXPORT.as_bytes());
    more.push(0);
    write_u32(&mut more, function);
    more
}

/// Unsigned LEB128.
fn write_u32(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn truncated(at: usize) -> ModuleError {
    ModuleError::Invalid(format!("its sections end too early, at byte {at}: the file may be truncated"))
}

/// Reads a module from its start to its end.
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// Where it stands.
    pub at: usize,
}

impl Reader<'_> {
    /// One byte.
    pub fn byte(&mut self) -> Result<u8, ModuleError> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(|| truncated(self.at))?;
        self.at = self.at.saturating_add(1);
        Ok(byte)
    }

    /// Unsigned LEB128 of at most ten bytes. What does not fit is cut: wasmi refuses it later.
    fn u64(&mut self) -> Result<u64, ModuleError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ModuleError::Invalid(format!("a number at byte {} is too long", self.at)))
    }

    /// A count or an index.
    pub fn u32(&mut self) -> Result<u32, ModuleError> {
        Ok(u32::try_from(self.u64()?).unwrap_or(u32::MAX))
    }

    /// Skips a number of any sign.
    pub fn leb(&mut self) -> Result<(), ModuleError> {
        while self.byte()? & 0x80 != 0 {}
        Ok(())
    }

    /// Skips `len` bytes.
    pub fn skip(&mut self, len: usize) -> Result<(), ModuleError> {
        self.at = self.at.saturating_add(len);
        if self.at > self.bytes.len() {
            return Err(truncated(self.at));
        }
        Ok(())
    }

    /// A constant of 32 bits, which is written as a signed number, as the address that it is.
    fn address(&mut self) -> Result<usize, ModuleError> {
        let (mut value, mut shift) = (0_i64, 0_u32);
        loop {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift = shift.saturating_add(7);
            if byte & 0x80 != 0 {
                continue;
            }
            if byte & 0x40 != 0 && shift < 64 {
                value |= -1_i64 << shift;
            }
            let low = u32::try_from(value & i64::from(u32::MAX)).unwrap_or(u32::MAX);
            return Ok(usize::try_from(low).unwrap_or(usize::MAX));
        }
    }

    fn size(&mut self) -> Result<usize, ModuleError> {
        Ok(usize::try_from(self.u64()?).unwrap_or(usize::MAX))
    }
}
