use serde_json::{json, Value};

use super::super::samples::{node, pod as pod_of};
use super::*;

/// Keys of a ConfigMap or Secret that is there; none: it is not.
fn map(data: Option<Value>) -> Given {
    let object = |data| serde_json::from_value(json!({"data": data})).unwrap();
    Given::ConfigMap(data.map(|data| Arc::new(object(data))))
}

fn secret(data: Option<&[(&str, &str)]>) -> Given {
    let object = |data: &[(&str, &str)]| Secret {
        data: data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), crate::api::ByteString(value.as_bytes().to_vec())))
            .collect(),
        ..Secret::default()
    };
    Given::Secret(data.map(|data| Arc::new(object(data))))
}

/// `path=content mode` lines, or the error.
fn files(source: Value, given: &[Given]) -> Result<Vec<String>, String> {
    let pod = pod_of(&json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]}));
    let mut volume = json!({"name": "v"});
    volume.as_object_mut().unwrap().extend(source.as_object().cloned().unwrap());
    let volume: crate::api::Volume = serde_json::from_value(volume).unwrap();
    let payload = payload(&pod, &volume.source, given, &node())?;
    let line = |(path, file): (&String, &PayloadFile)| {
        format!("{path}={} {:o}", String::from_utf8_lossy(&file.data), file.mode)
    };
    Ok(payload.iter().map(line).collect())
}

#[test]
fn whole_objects_items_and_modes() {
    let both = || map(Some(json!({"a": "1", "b": "2"})));
    let all = files(json!({"configMap": {"name": "m", "defaultMode": 0o400}}), &[both()]);
    assert_eq!(all.unwrap(), ["a=1 400", "b=2 400"]);
    let items = json!([{"key": "b", "path": "deep/er", "mode": 0o600}]);
    let some = files(json!({"configMap": {"name": "m", "items": items}}), &[both()]);
    assert_eq!(some.unwrap(), ["deep/er=2 600"]);
    let all = files(json!({"secret": {"secretName": "s"}}), &[secret(Some(&[("k", "v")]))]);
    assert_eq!(all.unwrap(), ["k=v 644"]);
}

#[test]
fn what_is_missing_is_an_error_unless_it_is_optional() {
    let item = json!([{"key": "x", "path": "x"}]);
    for (source, given, text) in [
        (json!({"configMap": {"name": "m"}}), map(None), "configmap \"m\" not found"),
        (json!({"secret": {"secretName": "s"}}), secret(None), "secret \"s\" not found"),
        (
            json!({"configMap": {"name": "m", "items": item}}),
            map(Some(json!({}))),
            "references non-existent config key: x",
        ),
        (
            json!({"secret": {"secretName": "s", "items": item}}),
            secret(Some(&[])),
            "references non-existent secret key: x",
        ),
    ] {
        assert_eq!(files(source.clone(), std::slice::from_ref(&given)).unwrap_err(), text);
        let mut optional = source;
        let kind = optional.as_object_mut().unwrap().values_mut().next().unwrap();
        kind.as_object_mut().unwrap().insert("optional".into(), json!(true));
        assert_eq!(files(optional, &[given]).unwrap(), [""; 0]);
    }
}

#[test]
fn projections_are_merged_and_the_later_one_wins() {
    let source = json!({"projected": {"defaultMode": 0o440, "sources": [
        {"configMap": {"name": "m"}},
        {"secret": {"name": "s", "items": [{"key": "k", "path": "a"}]}},
        {"downwardAPI": {"items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}, "mode": 0o444},
        ]}},
        {"serviceAccountToken": {"path": "token"}},
    ]}});
    let given = [
        map(Some(json!({"a": "1"}))),
        secret(Some(&[("k", "of the secret")])),
        Given::Nothing,
        Given::Token("t".into()),
    ];
    assert_eq!(
        files(source, &given).unwrap(),
        ["a=of the secret 440", "cpu=2 444", "name=p 440", "token=t 440"]
    );
}

#[test]
fn no_path_leads_elsewhere() {
    for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "..data", "a/./b", &"n".repeat(256)] {
        let source = json!({"configMap": {"name": "m", "items": [{"key": "a", "path": path}]}});
        let error = files(source, &[map(Some(json!({"a": "1"})))]).unwrap_err();
        assert!(error.starts_with("invalid path"), "{path}: {error}");
    }
    let items = json!([{"key": "a", "path": "x"}, {"key": "a", "path": "x/y"}]);
    let source = json!({"configMap": {"name": "m", "items": items}});
    assert!(files(source, &[map(Some(json!({"a": "1"})))]).unwrap_err().contains("not in a folder"));
    let big = map(Some(json!({"a": "x".repeat(MAX_BYTES), "b": "x"})));
    assert!(files(json!({"configMap": {"name": "m"}}), &[big]).unwrap_err().contains("more than"));
}

#[test]
fn secrets_and_tokens_are_secret() {
    for (source, secret) in [
        (json!({"configMap": {"name": "m"}}), false),
        (json!({"secret": {"secretName": "s"}}), true),
        (json!({"projected": {"sources": [{"configMap": {"name": "m"}}]}}), false),
        (json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}), true),
        (json!({"emptyDir": {}}), false),
    ] {
        let mut volume = json!({"name": "v"});
        volume.as_object_mut().unwrap().extend(source.as_object().cloned().unwrap());
        let volume: crate::api::Volume = serde_json::from_value(volume).unwrap();
        assert_eq!(is_secret(&volume.source), secret, "{source}");
    }
}
