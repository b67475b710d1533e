//! kubectl, as a user of the cluster runs it.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{bed::process::Process, tools::tool, Bed};

/// What a command that has ended left.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command as it was typed.
    pub typed: String,
    /// Whether it ended with 0.
    pub success: bool,
    /// Its exit code, where it had one.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Outcome {
    /// Runs `command`, giving it `input`.
    pub fn of(typed: String, mut command: Command, input: &str) -> Outcome {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start `{typed}` by nsenter: {e}"));
        if let Some(mut stdin) = child.stdin.take() {
            // It need not read what it is given.
            let _ = stdin.write_all(input.as_bytes());
        }
        let Output { status, stdout, stderr } =
            child.wait_with_output().unwrap_or_else(|e| panic!("cannot wait for `{typed}`: {e}"));
        Outcome {
            typed,
            success: status.success(),
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// What it printed; the test fails if it failed.
    #[track_caller]
    pub fn expect(self) -> String {
        assert!(
            self.success,
            "`{}` failed with {:?}:\n{}{}",
            self.typed, self.code, self.stdout, self.stderr
        );
        self.stdout
    }

    /// What it complained about; the test fails if it did not fail.
    #[track_caller]
    pub fn expect_failure(self) -> String {
        assert!(!self.success, "`{}` did not fail, and printed:\n{}", self.typed, self.stdout);
        self.stderr
    }
}

impl Bed {
    /// `kubectl` with these arguments, as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.command(tool("kubectl"));
        command.args(arguments);
        Outcome::of(format!("kubectl {}", arguments.join(" ")), command, "")
    }

    /// `kubectl` with these arguments in the background, its output in the log `name`.
    pub fn kubectl_spawn(&self, name: &str, arguments: &[&str]) -> Process {
        let mut command = self.command(tool("kubectl"));
        command.args(arguments);
        self.spawn(name, command)
    }

    /// `kubectl apply -f -` of these manifests.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        let mut command = self.command(tool("kubectl"));
        command.args(["apply", "-f", "-"]);
        Outcome::of(format!("kubectl apply -f - <<EOF\n{manifests}EOF"), command, manifests).expect()
    }

    /// `kubectl get … -o json`, null where there is nothing of that name.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        let outcome = self.kubectl(&all);
        if outcome.success {
            serde_json::from_str(&outcome.stdout).unwrap_or_default()
        } else {
            Value::Null
        }
    }

    /// Waits until the columns of `kubectl get pods POD` (READY, STATUS, RESTARTS) are as `wanted`
    /// says, and gives them.
    #[track_caller]
    pub fn wait_for_columns(
        &self,
        namespace: &str,
        pod: &str,
        limit: Duration,
        wanted: impl Fn(&Columns) -> bool,
    ) -> Columns {
        let mut last = None;
        let deadline = std::time::Instant::now() + limit;
        loop {
            if let Some(columns) = self.columns(namespace, pod) {
                if wanted(&columns) {
                    return columns;
                }
                last = Some(columns);
            }
            if std::time::Instant::now() > deadline {
                let described = self.kubectl(&["-n", namespace, "describe", "pod", pod]).stdout;
                panic!(
                    "waited {} s in vain for pod {pod}; its columns are {last:?} and its description\n{described}",
                    limit.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The columns of `kubectl get pods POD`, if there is such a pod.
    pub fn columns(&self, namespace: &str, pod: &str) -> Option<Columns> {
        let outcome = self.kubectl(&["-n", namespace, "get", "pod", pod, "--no-headers"]);
        let mut words = outcome.stdout.split_whitespace();
        words.next().filter(|name| *name == pod)?;
        Some(Columns {
            ready: words.next()?.to_owned(),
            status: words.next()?.to_owned(),
            restarts: words.next()?.parse().ok()?,
        })
    }

    /// The command line as a user types it into the bed's shell.
    pub fn shell(&self, typed: &str) -> Outcome {
        let mut command = self.command("bash");
        command.args(["-euo", "pipefail", "-c", typed]);
        Outcome::of(typed.to_owned(), command, "")
    }
}

/// A line of `kubectl get pods`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// READY, as in `1/1`.
    pub ready: String,
    /// STATUS.
    pub status: String,
    /// RESTARTS, without the time of the last one.
    pub restarts: u32,
}
