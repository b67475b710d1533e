//! Variables and arguments.

use super::*;
use crate::api::ByteString;
use crate::pod::samples::{node, pod};
use serde_json::{json, Value};

fn sources() -> Sources {
    let map = |name: &str, data: Value| {
        (name.to_owned(), serde_json::from_value::<ConfigMap>(json!({"data": data})).unwrap())
    };
    let mut secret = Secret::default();
    secret.data.insert("user".to_owned(), ByteString(b"me".to_vec()));
    secret.data.insert("bytes".to_owned(), ByteString(vec![0xff, 0xfe]));
    Sources {
        config_maps: [map("m", json!({"a": "1", "b.c": "2"})), map("n", json!({"a": "3"}))].into(),
        secrets: [("s".to_owned(), secret)].into(),
        services: Vec::new(),
    }
}

fn environment(container: Value) -> Result<Vec<(String, String)>, String> {
    let mut container = container;
    container["name"] = json!("c");
    container["image"] = json!("i:1");
    let mut pod = pod(&json!({"containers": [container], "serviceAccountName": "sa"}));
    pod.metadata.labels.insert("app".to_owned(), "x\"y".to_owned());
    pod.metadata.annotations.insert("note/it".to_owned(), "z".to_owned());
    let container = pod.spec.containers.first().unwrap();
    let image = ["PATH=/bin".to_owned(), "A=image".to_owned()];
    let image = ImageConfig { env: &image, ..ImageConfig::default() };
    let environment = variables(&pod, container, image, &node(), &sources(), &EnvFiles::new());
    environment.map(|environment| environment.all).map_err(|error| error.to_string())
}

fn value(env: Value) -> Result<Option<String>, String> {
    let list = environment(json!({"env": env}))?;
    Ok(list.into_iter().find(|(name, _)| name == "X").map(|(_, value)| value))
}

#[test]
fn later_sources_win_and_the_order_is_kept() {
    let got = environment(json!({
        "envFrom": [{"configMapRef": {"name": "m"}}, {"configMapRef": {"name": "n"}},
            {"prefix": "P_", "configMapRef": {"name": "m"}}],
        "env": [{"name": "A", "value": "own"}, {"name": "B", "value": "$(a)$(P_a)$(A)$(NO)$$(A)"}, {"name": "E"}],
    }))
    .unwrap();
    let expected = [
        ("PATH", "/bin"),
        ("A", "own"),
        ("a", "3"),
        ("b.c", "2"),
        ("P_a", "1"),
        ("P_b.c", "2"),
        ("B", "31own$(NO)$(A)"),
        ("E", ""),
    ];
    let got: Vec<_> = got.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(got, expected);
}

#[test]
fn values_of_every_source() {
    let from = |source: Value| json!([{"name": "X", "valueFrom": source}]);
    let field = |path: &str| from(json!({"fieldRef": {"fieldPath": path}}));
    let resource = |name: &str, divisor: &str| json!([{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": name, "divisor": divisor}}}]);
    let some = |text: &str| Ok(Some(text.to_owned()));
    let fails = |text: &str| Err(text.to_owned());
    for (env, expected) in [
        (field("metadata.name"), some("p")),
        (field("metadata.namespace"), some("ns")),
        (field("metadata.uid"), some("u")),
        (field("metadata.labels['app']"), some("x\"y")),
        (field("metadata.labels['no']"), some("")),
        (field("metadata.annotations['note/it']"), some("z")),
        (field("metadata.labels"), some("app=\"x\\\"y\"")),
        (field("spec.nodeName"), some("n")),
        (field("spec.serviceAccountName"), some("sa")),
        (field("status.hostIP"), some("10.0.0.5")),
        (field("status.hostIPs"), some("10.0.0.5")),
        (field("status.podIP"), some("10.0.0.5")),
        (field("status.podIPs"), some("10.0.0.5")),
        (field("spec.hostPID"), fails("unsupported fieldPath: spec.hostPID")),
        (field("spec['x']"), fails("fieldPath \"spec['x']\" does not support subscript")),
        (resource("limits.cpu", "1"), some("1")),
        (resource("limits.memory", "1Mi"), some("1024")),
        (resource("limits.memory", "0"), some("1073741824")),
        (resource("requests.cpu", "1m"), some("0")),
        (resource("limits.gpu", "1"), fails("unsupported container resource : limits.gpu")),
        (from(json!({"configMapKeyRef": {"name": "m", "key": "b.c"}})), some("2")),
        (
            from(json!({"configMapKeyRef": {"name": "m", "key": "z"}})),
            fails("couldn't find key z in ConfigMap ns/m"),
        ),
        (from(json!({"configMapKeyRef": {"name": "m", "key": "z", "optional": true}})), Ok(None)),
        (
            from(json!({"configMapKeyRef": {"name": "gone", "key": "z"}})),
            fails("configmap \"gone\" not found"),
        ),
        (from(json!({"configMapKeyRef": {"name": "gone", "key": "z", "optional": true}})), Ok(None)),
        (from(json!({"secretKeyRef": {"name": "s", "key": "user"}})), some("me")),
        (
            from(json!({"secretKeyRef": {"name": "s", "key": "z"}})),
            fails("couldn't find key z in Secret ns/s"),
        ),
        (from(json!({"secretKeyRef": {"name": "gone", "key": "z"}})), fails("secret \"gone\" not found")),
        (
            from(json!({"secretKeyRef": {"name": "s", "key": "bytes"}})),
            fails("key bytes of secret \"s\" is not UTF-8 and cannot be a variable"),
        ),
    ] {
        assert_eq!(value(env.clone()), expected, "{env}");
    }
}

#[test]
fn a_containers_own_resources_come_before_the_nodes() {
    let got = environment(json!({
        "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "3Mi"}},
        "env": [
            {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "2Mi"}}},
        ],
    }))
    .unwrap();
    let of = |name: &str| got.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!((of("A"), of("B"), of("C")), (Some("2"), Some("1500"), Some("2")));
}

#[test]
fn missing_objects_are_errors_unless_optional() {
    for (from, expected) in [
        (json!({"configMapRef": {"name": "gone"}}), Err("configmap \"gone\" not found".to_owned())),
        (json!({"secretRef": {"name": "gone"}}), Err("secret \"gone\" not found".to_owned())),
        (json!({"configMapRef": {"name": "gone", "optional": true}}), Ok(2)),
        (json!({"secretRef": {"name": "gone", "optional": true}}), Ok(2)),
    ] {
        assert_eq!(environment(json!({"envFrom": [from]})).map(|list| list.len()), expected);
    }
}

#[test]
fn variables_that_double_again_and_again_are_stopped() {
    let mut env = vec![json!({"name": "V0", "value": "xxxxxxxxxxxxxxxx"})];
    for index in 1..40 {
        let half = format!("$(V{})", index - 1);
        env.push(json!({"name": format!("V{index}"), "value": format!("{half}{half}")}));
    }
    let error = environment(json!({"env": env})).unwrap_err();
    assert!(error.contains("larger than 262144 bytes"), "{error}");
}

#[test]
fn names_and_values_that_wasi_cannot_carry_are_refused() {
    for env in [
        json!({"name": "A=B", "value": "x"}),
        json!({"name": "", "value": "x"}),
        json!({"name": "A", "value": "a\0b"}),
    ] {
        assert!(environment(json!({"env": [env]})).is_err(), "{env}");
    }
}

#[test]
fn arguments_follow_the_container_and_then_the_image() {
    let list = |items: &[&str]| -> Vec<String> { items.iter().map(|item| (*item).to_owned()).collect() };
    let visible = vec![("A".to_owned(), "1".to_owned())];
    let mut all = visible.clone();
    all.push(("IMAGE".to_owned(), "2".to_owned()));
    let env = Environment { all, visible };
    for (command, args, entrypoint, cmd, expected) in [
        (&[][..], &[][..], &[][..], &[][..], &["hello"][..]),
        (&[], &["x"], &[], &[], &["hello", "x"]),
        (&["own"], &[], &["entry"], &["cmd"], &["own"]),
        (&["own"], &["x"], &["entry"], &["cmd"], &["own", "x"]),
        (&[], &[], &["entry"], &["cmd"], &["entry", "cmd"]),
        (&[], &["x"], &["entry"], &["cmd"], &["entry", "x"]),
        (&[], &[], &[], &["prog", "arg"], &["prog", "arg"]),
        (&[], &["x"], &[], &["prog", "arg"], &["hello", "x"]),
        (&["$(IMAGE)"], &["$(IMAGE)"], &[], &[], &["$(IMAGE)", "$(IMAGE)"]),
        (&["$(A)$$"], &["$(NO)", "$$(A)"], &[], &[], &["1$", "$(NO)", "$(A)"]),
    ] {
        let container = Container { command: list(command), args: list(args), ..Container::default() };
        let (entrypoint, cmd) = (list(entrypoint), list(cmd));
        let image = ImageConfig { env: &[], entrypoint: &entrypoint, cmd: &cmd };
        assert_eq!(
            arguments(&container, image, "hello", &env).unwrap(),
            list(expected),
            "{command:?} {args:?}"
        );
    }
}

#[test]
fn arguments_and_variables_have_one_limit_which_is_the_runtimes() {
    let visible = vec![("A".to_owned(), "x".repeat(100_000))];
    let env = Environment { all: visible.clone(), visible };
    let left = MAX_ARGUMENTS - 100_003;
    let of = |args: Vec<String>, cmd: &[String]| {
        let container = Container { args, ..Container::default() };
        arguments(&container, ImageConfig { cmd, ..ImageConfig::default() }, "p", &env)
    };
    let text = |length: usize| "y".repeat(length);
    for (args, cmd, fits) in [
        (vec!["$(A)".to_owned()], vec![], true),
        (vec!["$(A)".to_owned(); 2], vec![], false),
        (vec![text(left - 3)], vec![], true),
        (vec![text(left - 2)], vec![], false),
        (vec![], vec![text(left - 1)], true),
        (vec![], vec![text(left)], false),
        (vec![String::new(); left - 2], vec![], true),
        (vec![String::new(); left - 1], vec![], false),
        (vec![], vec!["\0".to_owned()], false),
    ] {
        assert_eq!(of(args, &cmd).is_ok(), fits);
    }
}

#[test]
fn a_variable_that_is_set_again_counts_once() {
    let half = "x".repeat(200_000);
    let env = json!([{"name": "A", "value": half}, {"name": "A", "value": half}]);
    assert_eq!(environment(json!({"env": env})).unwrap().len(), 2);
}

#[test]
fn program_names() {
    for (image, name) in [
        ("host:5000/test/hello:v1", "hello"),
        ("hello", "hello"),
        ("a/b@sha256:00", "b"),
        ("a/b:v1@sha256:00", "b"),
    ] {
        assert_eq!(program_name(image), name);
    }
}

#[test]
fn references_name_each_object_once() {
    let container: Container = serde_json::from_value(json!({
        "envFrom": [{"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}],
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}}],
    }))
    .unwrap();
    let (config_maps, secrets) = references(&container);
    assert_eq!(config_maps.into_iter().collect::<Vec<_>>(), ["m"]);
    assert_eq!(secrets.into_iter().collect::<Vec<_>>(), ["s", "t"]);
}

#[test]
fn only_what_a_container_draws_on_is_kept() {
    let object = |value: &str| -> ConfigMap {
        serde_json::from_value(json!({"data": {"a": value, "b": value}})).unwrap()
    };
    let secret: Secret = serde_json::from_value(json!({"data": {"a": "eA==", "b": "eA=="}})).unwrap();
    let sources = Sources {
        config_maps: [("keys", "1"), ("whole", "2")].map(|(k, v)| (k.to_owned(), object(v))).into(),
        secrets: [("s".to_owned(), secret)].into(),
        ..Sources::default()
    };
    let pod = pod(&json!({"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "whole"}}],
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "keys", "key": "a"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "b"}}}]}]}));
    let kept = sources.trimmed(&pod.spec.containers[0]);
    let keys = |name: &str| kept.config_maps[name].data.keys().cloned().collect::<Vec<_>>();
    assert_eq!((keys("keys"), keys("whole").len()), (vec!["a".to_owned()], 2));
    assert_eq!(kept.secrets["s"].data.keys().collect::<Vec<_>>(), ["b"]);
}
