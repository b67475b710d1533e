//! The cluster's own controllers do with this node's pods as with any other's.

use std::{sync::OnceLock, time::Duration};

use serde_json::{json, Value};
use tests::{cluster::pod_spec, guests::Guest, Cluster};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(120);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

/// An object with a template of pods that run `guest` and are called by `app`.
fn workload(kind: &str, app: &str, guest: Guest, more: Value) -> Value {
    let image = cluster().image(guest);
    let template = json!({"metadata": {"labels": {"app": app}}, "spec": pod_spec("Always", &image, &[])});
    let mut spec = json!({"selector": {"matchLabels": {"app": app}}, "template": template});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": app}, "spec": spec})
}

fn pods_of(app: &str) -> Vec<Value> {
    cluster().bed.get(&["pods", "-l", &format!("app={app}")])["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_deployment_rolls_and_scales() {
    let bed = &cluster().bed;
    bed.apply_value(&workload("Deployment", "web", Guest::SleepC, json!({"replicas": 3})));
    let rolled = ["rollout", "status", "deployment/web", "--timeout=120s"];
    bed.kubectl(&rolled).expect();
    let image = cluster().image(Guest::Hello);
    bed.kubectl(&["set", "image", "deployment/web", &format!("main={image}")]).expect();
    bed.kubectl(&rolled).expect();
    bed.wait_for("the old pods to go", SHOWN, || (pods_of("web").len() == 3).then_some(()));
    for pod in pods_of("web") {
        assert_eq!(pod["status"]["containerStatuses"][0]["image"], image.as_str());
    }
    bed.kubectl(&["scale", "deployment/web", "--replicas=1"]).expect();
    bed.wait_for("two to go", SHOWN, || (pods_of("web").len() == 1).then_some(()));
    bed.kubectl(&["rollout", "undo", "deployment/web"]).expect();
    bed.kubectl(&rolled).expect();
    bed.kubectl(&["delete", "deployment", "web"]).expect();
    bed.wait_for("all to go", SHOWN, || pods_of("web").is_empty().then_some(()));
}

#[test]
fn a_stateful_set_comes_and_goes_in_order_and_keeps_its_names() {
    let bed = &cluster().bed;
    bed.apply_value(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "store"},
        "spec": {"clusterIP": "None", "selector": {"app": "store"}, "ports": [{"port": 1}]},
    }));
    let more = json!({"replicas": 2, "serviceName": "store"});
    bed.apply_value(&workload("StatefulSet", "store", Guest::SleepC, more));
    bed.kubectl(&["rollout", "status", "statefulset/store", "--timeout=120s"]).expect();
    let began = |name: &str| bed.get(&["pod", name])["status"]["startTime"].as_str().map(str::to_owned);
    assert!(began("store-0") <= began("store-1"), "the first is ready before the second is made");
    let uid = |name: &str| bed.get(&["pod", name])["metadata"]["uid"].clone();
    let before = uid("store-0");
    bed.kubectl(&["delete", "pod", "store-0"]).expect();
    bed.wait_for("another pod of the same name", SHOWN, || {
        let columns = bed.columns("default", "store-0")?;
        (columns.ready == "1/1" && uid("store-0") != before).then_some(())
    });
    bed.kubectl(&["delete", "statefulset", "store"]).expect();
    bed.wait_for("all to go", SHOWN, || pods_of("store").is_empty().then_some(()));
}

#[test]
fn a_cron_job_makes_jobs_that_complete() {
    let bed = &cluster().bed;
    let spec = pod_spec("OnFailure", &cluster().image(Guest::Exit), &["0"]);
    bed.apply_value(&json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "minutely"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": spec}}}},
    }));
    bed.wait_for("a job of the next minute to complete", SHOWN, || {
        let time = bed.get(&["cronjob", "minutely"])["status"]["lastSuccessfulTime"].clone();
        time.is_string().then_some(())
    });
    bed.kubectl(&["delete", "cronjob", "minutely"]).expect();
}

/// The node is one for all: who takes it away from the others does it in one test.
#[test]
fn the_node_is_cordoned_evicted_from_drained_and_taken_back() {
    let cluster = Cluster::start();
    let (bed, node) = (&cluster.bed, cluster.agent.node.as_str());
    let image = cluster.image(Guest::SleepC);
    let template =
        |app: &str| json!({"metadata": {"labels": {"app": app}}, "spec": pod_spec("Always", &image, &[])});
    let object = |kind: &str, app: &str, more: Value| {
        let mut spec = json!({"selector": {"matchLabels": {"app": app}}, "template": template(app)});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": app}, "spec": spec})
    };
    let pods = |app: &str| {
        bed.get(&["pods", "-l", &format!("app={app}")])["items"].as_array().cloned().unwrap_or_default()
    };
    bed.apply_value(&object("Deployment", "guarded", json!({"replicas": 1})));
    bed.apply_value(&object("DaemonSet", "everywhere", json!({})));
    bed.apply_value(&json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "guarded"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
    }));
    bed.kubectl(&["rollout", "status", "deployment/guarded", "--timeout=120s"]).expect();
    bed.kubectl(&["rollout", "status", "daemonset/everywhere", "--timeout=120s"]).expect();

    bed.kubectl(&["cordon", node]).expect();
    bed.kubectl(&["scale", "deployment/guarded", "--replicas=2"]).expect();
    bed.wait_for("the second pod to find no node", SHOWN, || {
        let pending = pods("guarded").into_iter().find(|pod| pod["status"]["phase"] == "Pending")?;
        let told = pending["status"]["conditions"][0]["message"].as_str()?.to_owned();
        told.contains("unschedulable").then_some(())
    });
    let drain = ["drain", node, "--ignore-daemonsets", "--timeout=10s"];
    let refused = bed.kubectl(&drain);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(!refused.success && said.contains("disruption budget"), "{said}");
    bed.kubectl(&["delete", "pdb", "guarded"]).expect();
    bed.kubectl(&["drain", node, "--ignore-daemonsets", "--timeout=120s"]).expect();
    let left = pods("guarded").into_iter().filter(|pod| pod["spec"]["nodeName"] == node).count();
    assert_eq!(left, 0, "nothing of the deployment is left on the node");
    assert_eq!(pods("everywhere").len(), 1, "a DaemonSet's pod stays");

    bed.kubectl(&["uncordon", node]).expect();
    bed.kubectl(&["rollout", "status", "deployment/guarded", "--timeout=120s"]).expect();
    // A taint drives them away as well.
    bed.kubectl(&["taint", "node", node, "repair=now:NoExecute"]).expect();
    bed.wait_for("the taint to drive all away", SHOWN, || {
        let here = |app: &str| {
            pods(app).iter().any(|pod| pod["spec"]["nodeName"] == node && pod["status"]["phase"] == "Running")
        };
        (!here("guarded") && !here("everywhere")).then_some(())
    });
    bed.kubectl(&["taint", "node", node, "repair-"]).expect();
    bed.kubectl(&["rollout", "status", "deployment/guarded", "--timeout=120s"]).expect();
}
