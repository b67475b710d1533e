//! What the settings of the agent come to.

use super::super::values::Parsed;
use super::*;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

pub(in crate::config) fn load(
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<AgentConfig, UsageError> {
    let variables: HashMap<String, OsString> =
        variables.iter().map(|(name, text)| ((*name).to_owned(), OsString::from(*text))).collect();
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let lookup = |name: &str| variables.get(name).cloned();
    match Values::collect(&COMMAND, arguments, lookup, Path::new("/nowhere"))? {
        Parsed::Run(values) => AgentConfig::from_values(&values, "Gateway-7", 512 * MIB),
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_those_of_the_help_text() {
    let config = load(&[], &[]).unwrap();
    assert_eq!(config.node_name, "gateway-7");
    assert_eq!(config.port, 10250);
    assert_eq!(config.kubeconfig, PathBuf::from("/var/lib/copepod/kubeconfig"));
    assert_eq!(config.taints, [("krustlet/arch".into(), "wasm32-wasi".into(), "NoExecute".into())]);
    assert_eq!(config.max_pods, 110);
    assert_eq!(config.image_gc, Thresholds { high: 85, low: 80 });
    assert_eq!((config.memory_reserved, config.guest_memory), (0, 512 * MIB));
    assert_eq!((config.watchdog_device, config.host_paths), (None, vec![]));
    assert_eq!(config.log_dir, PathBuf::from("/var/lib/copepod/logs"));
    assert_eq!(config.logs, log::Settings::default());
}

#[test]
fn flags_beat_environment_beats_file() {
    let file = std::env::temp_dir().join(format!("copepod-config-{:x}.yaml", fastrand::u64(..)));
    std::fs::write(&file, "port: 1\nmaxPods: 5\nnodeName: from-file\nnodeLabels: {a: 7}\naddress:\n")
        .unwrap();
    let path = file.to_str().unwrap();
    let config = load(
        &["--config", path, "--port=3"],
        &[("COPEPOD_PORT", "2"), ("COPEPOD_MAX_PODS", "6"), ("COPEPOD_REGISTER_WITH_TAINTS", "")],
    )
    .unwrap();
    assert_eq!((config.port, config.max_pods), (3, 6));
    assert!(config.taints.is_empty(), "an empty variable is an empty list");
    assert_eq!(config.node_name, "from-file");
    assert_eq!(config.node_labels, [("a".into(), "7".into())]);
    assert_eq!(config.address.to_string(), "0.0.0.0");
    std::fs::write(&file, "# port: 1\n").unwrap();
    assert_eq!(load(&["--config", path], &[]).unwrap().port, 10250);
    std::fs::write(&file, "prot: 1\n").unwrap();
    let error = load(&["--config", path], &[]).unwrap_err().to_string();
    assert!(error.contains("there is no setting \"prot\""), "{error}");
    std::fs::remove_file(&file).unwrap();
    assert!(load(&["--config", path], &[]).is_err());
}

#[test]
fn krustlets_and_kubelets_names_mean_the_same() {
    let config =
        load(&["--bootstrap-kubeconfig", "b.conf", "--hostname-override", "N1", "--addr", "::1"], &[])
            .unwrap();
    assert_eq!(config.bootstrap_file, std::path::absolute("b.conf").ok());
    assert_eq!(config.node_name, "n1");
    assert_eq!(config.address.to_string(), "::1");
}

#[test]
fn lists_add_up_and_an_empty_taint_means_none() {
    let config =
        load(&["--node-labels", "a=b,c=d", "--node-labels", "e=f", "--register-with-taints="], &[]).unwrap();
    assert_eq!(config.node_labels.len(), 3);
    assert!(config.taints.is_empty());
}

#[test]
fn a_bad_value_is_one_line_that_names_its_source() {
    for (arguments, variables, text) in [
        (vec!["--port", "70000"], vec![], "--port: \"70000\": not a whole number"),
        (vec!["--port", "1", "--port", "2"], vec![], "--port: given twice"),
        (vec!["--no-such"], vec![], "there is no flag --no-such"),
        (vec!["-x"], vec![], "there is no flag -x"),
        (vec!["serve"], vec![], "unexpected operand"),
        (vec!["--node-ip", "127.0.0.1"], vec![], "--node-ip: \"127.0.0.1\""),
        (vec!["--node-name", "a_b"], vec![], "--node-name"),
        (vec!["--node-labels", "node-role.kubernetes.io/x="], vec![], "kubectl label node"),
        (vec![], vec![("COPEPOD_MAX_PODS", "many")], "COPEPOD_MAX_PODS: \"many\""),
        (vec!["--register-with-taints", "a=b:NoExecute,a=c:NoExecute"], vec![], "stands there twice"),
        (vec!["--image-gc-high-threshold", "101"], vec![], "not a whole number from 0 to 100"),
        (vec!["--image-gc-high-threshold", "80"], vec![], "--image-gc-low-threshold: \"80\": not less"),
        (vec!["--image-gc-low-threshold", "85"], vec![], "--image-gc-low-threshold: \"85\": not less than"),
        (vec!["--data-dir", ""], vec![], "--data-dir: \"\""),
        (vec!["--board", "pi"], vec![], "--board: \"pi\": there is no such board, but raspberry"),
        (vec!["--board", "/nowhere.toml"], vec![], "--board: board file /nowhere.toml: No such file"),
    ] {
        let error = load(&arguments, &variables).unwrap_err().to_string();
        assert!(error.contains(text), "{arguments:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
