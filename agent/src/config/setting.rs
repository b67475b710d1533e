//! Settings, described once: flags, environment variables, file keys and the help text all come from
//! one table a command.

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: present or not.
    Switch,
    /// One value, shown in the help under this name.
    Value(&'static str),
    /// One whole number, likewise.
    Number(&'static str),
    /// One whole number, shown likewise, or nothing but the flag.
    Optional(&'static str),
    /// A list: commas separate, and the flag may be repeated.
    List(&'static str),
    /// One value each time that the flag is given. (Of a command line alone: no variable, no file.)
    Each(&'static str),
}

/// One setting of a command.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes; the environment variable is `COPEPOD_` and this in upper snake
    /// case, the key in the configuration file this in camelCase.
    pub name: &'static str,
    /// Other flags that mean the same: the names that a kubelet and Krustlet use.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub takes: Takes,
    /// The default, as a user would type it.
    pub default: Option<&'static str>,
    /// What it means, for a person.
    pub help: &'static str,
    /// Whether a board file may set it, under its flag's name ([`super::board`]).
    pub board: bool,
}

impl Setting {
    /// The same setting, which a board file may set too.
    #[must_use]
    pub const fn of_the_board(mut self) -> Setting {
        self.board = true;
        self
    }

    /// The environment variable of this setting.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("COPEPOD_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// The key of this setting in a configuration file.
    #[must_use]
    pub fn key(&self) -> String {
        let mut key = String::with_capacity(self.name.len());
        let mut upper = false;
        for c in self.name.chars() {
            if c == '-' {
                upper = true;
            } else if std::mem::take(&mut upper) {
                key.push(c.to_ascii_uppercase());
            } else {
                key.push(c);
            }
        }
        key
    }

    /// Whether a flag without its dashes means this setting.
    #[must_use]
    pub fn answers_to(&self, flag: &str) -> bool {
        self.name == flag || self.aliases.contains(&flag)
    }
}

/// A sub-command as the command line sees it.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine {
    /// `copepod`, `copepod run`, …
    pub name: &'static str,
    /// What follows the flags, for the help: `[FILE]`, `FILE REFERENCE`, or nothing.
    pub operands: &'static str,
    /// How many operands there may be.
    pub operand_count: (usize, usize),
    /// What the command does, some lines.
    pub about: &'static str,
    /// Its settings, in the order of the help text.
    pub settings: &'static [Setting],
    /// Whether values may also come from `COPEPOD_…` variables and a `--config` file.
    pub configurable: bool,
}
