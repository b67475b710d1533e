//! From bytes to a compiled module that every guest of the same digest shares.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmi::{CompilationMode, Config, CustomFuelCosts, Engine, ExternType, Linker, OperatorCost};

use super::initial::Initial;
use super::limits::{BYTES_PER_FUEL, GROW_FUEL, MAX_RECURSION, MAX_STACK};
use super::sections::{Sections, START_EXPORT};
use super::wasi::{self, Host};
use super::{ModuleError, StartError};

/// A module in the interpreter's own code, and what it takes to run it.
///
/// Each has an engine of its own: wasmi keeps compiled code until its engine goes, so that a module
/// that nobody runs any more gives its memory back.
pub struct Compiled {
    /// Its engine.
    pub engine: Engine,
    /// The module.
    pub module: wasmi::Module,
    /// The calls that it imports.
    pub linker: Linker<Host>,
    /// Bytes of linear memory that it starts with.
    pub initial_memory: u64,
    /// What its linear memory holds to begin with.
    pub initial: Initial,
    /// Whether it may open files: it imports `path_open`.
    pub opens_files: bool,
    /// The functions to call, one after the other.
    pub entries: Vec<&'static str>,
    unlinkable: Option<StartError>,
}

impl Compiled {
    /// Translates `bytes`.
    pub fn new(bytes: &[u8]) -> Result<Compiled, ModuleError> {
        catch_unwind(|| Compiled::translate(bytes))
            .unwrap_or_else(|panic| Err(ModuleError::Panic(panic_text(&*panic))))
    }

    fn translate(bytes: &[u8]) -> Result<Compiled, ModuleError> {
        let sections = Sections::read(bytes)?;
        let rewritten = sections.with_start_exported();
        let engine = Engine::new(&config());
        let module = wasmi::Module::new(&engine, rewritten.as_deref().unwrap_or(bytes))
            .map_err(|error| ModuleError::Invalid(error.to_string()))?;
        let mut entries = Vec::new();
        if rewritten.is_some() {
            entries.push(START_EXPORT);
        }
        if has_function(&module, "_initialize") {
            entries.push("_initialize");
        }
        let mut unlinkable = None;
        match module.get_export("_start") {
            Some(ExternType::Func(ty)) if ty.params().is_empty() && ty.results().is_empty() => {
                entries.push("_start");
            }
            Some(_) => unlinkable = Some(StartError::StartType),
            None => unlinkable = Some(StartError::NoStart),
        }
        let mut linker = Linker::new(&engine);
        let imports: Vec<_> = module.imports().collect();
        let mut linked = Vec::new();
        for import in &imports {
            let (from, name) = (import.module(), import.name());
            if from != wasi::MODULE || !wasi::offers(name) {
                unlinkable = Some(StartError::MissingImport { module: from.into(), name: name.into() });
                continue;
            }
            let added = match import.ty() {
                // Imported twice, by the same type, it is one import.
                ExternType::Func(wanted) if linked.contains(&(name, wanted)) => true,
                ExternType::Func(wanted) => {
                    linked.push((name, wanted));
                    wasi::link(&mut linker, name, wanted)
                        .map_err(|error| ModuleError::Invalid(error.to_string()))?
                }
                _ => false,
            };
            if !added {
                unlinkable = Some(StartError::ImportType { module: from.into(), name: name.into() });
            }
        }
        let opens_files = linked.iter().any(|(name, _)| *name == "path_open");
        let (initial_memory, initial) = (sections.initial_memory, Initial::new(bytes, &sections.data));
        let compiled =
            Compiled { engine, module, linker, initial_memory, initial, opens_files, entries, unlinkable };
        Ok(compiled)
    }

    /// Why no guest can run it; none: one can.
    pub fn linkable(&self) -> Result<(), StartError> {
        self.unlinkable.clone().map_or(Ok(()), Err)
    }
}

fn has_function(module: &wasmi::Module, name: &str) -> bool {
    match module.get_export(name) {
        Some(ExternType::Func(ty)) => ty.params().is_empty() && ty.results().is_empty(),
        _ => false,
    }
}

fn config() -> Config {
    let costs = OperatorCost { memory_grow: GROW_FUEL, table_grow: GROW_FUEL, ..OperatorCost::default() };
    let mut config = Config::default();
    config
        .consume_fuel(true)
        // In the lazy modes, fuel that ends while a callee is translated ends the guest.
        .compilation_mode(CompilationMode::Eager)
        .ignore_custom_sections(true)
        .wasm_multi_memory(false)
        // A start function would run unsliced; `sections` has made it an export.
        .allow_start_fn(false)
        .operator_cost(costs)
        .set_max_recursion_depth(MAX_RECURSION)
        .set_max_stack_height(MAX_STACK)
        .fuel_cost(CustomFuelCosts {
            bytes_copied_per_fuel: BYTES_PER_FUEL,
            // wasmi's defaults; charged by the lazy modes only.
            fuel_per_bytes_translated: 7,
            fuel_per_bytes_validated: 2,
        });
    config
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Compiled modules by digest, each kept as long as somebody uses it.
#[derive(Default)]
pub struct Cache {
    modules: Mutex<BTreeMap<String, Arc<Mutex<Weak<Compiled>>>>>,
}

impl Cache {
    /// The module of `digest`; of two that ask for one that is not there, the second waits for the first.
    pub fn get(&self, digest: &str, bytes: &[u8]) -> Result<Arc<Compiled>, ModuleError> {
        let slot = {
            let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
            modules.retain(|_, slot| Arc::strong_count(slot) > 1 || in_use(slot));
            modules.entry(digest.to_owned()).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = slot.upgrade() {
            return Ok(compiled);
        }
        let compiled = Arc::new(Compiled::new(bytes)?);
        *slot = Arc::downgrade(&compiled);
        Ok(compiled)
    }
}

fn in_use(slot: &Mutex<Weak<Compiled>>) -> bool {
    slot.try_lock().map_or(true, |slot| slot.strong_count() > 0)
}
