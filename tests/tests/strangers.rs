//! Strangers in one process: who ran at two deaths of the agent in a row starts after the others.

use std::time::Duration;

use tests::{
    cluster::{pod, pod_spec},
    guests::Guest,
    Agent, Cluster,
};

/// How long a state may take to show; a suspect waits for a minute at most.
const SHOWN: Duration = Duration::from_secs(150);

#[test]
fn a_container_that_ran_at_two_deaths_of_the_agent_starts_last_and_says_why() {
    let Cluster { agent, registry: _registry, plain, bed, .. } = Cluster::start();
    let image = plain.image("test/sleep:v1");
    let module = Guest::SleepC.wasm();
    bed.copepod(&["push", "--insecure-registries", &plain.host, &module.to_string_lossy(), &image]).expect();
    let run = |name: &str| bed.apply_value(&pod(name, pod_spec("Always", &image, &[])));
    let running = |name: &str, restarts: u32| {
        bed.wait_for_columns("default", name, SHOWN, |columns| {
            columns.status == "Running" && columns.restarts == restarts
        });
    };
    let dies = |agent: Agent| {
        agent.kill9();
        Agent::join(&bed, &["--insecure-registries", &plain.host])
    };
    run("stranger");
    running("stranger", 0);
    let agent = dies(agent);
    // One death is nobody's: it runs again at once.
    running("stranger", 1);
    let agent = dies(agent);
    let waiting = bed.wait_for("the stranger to wait", SHOWN, || {
        let pod = bed.get(&["pod", "stranger"]);
        let waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        (waiting["reason"] == "CrashLoopBackOff").then(|| waiting["message"].to_string())
    });
    assert!(waiting.contains("died 2 times in a row while container main ran"), "{waiting}");
    // Others are not held up by it.
    run("other");
    running("other", 0);
    let columns = bed.columns("default", "stranger").expect("the pod is there");
    assert_eq!((columns.status.as_str(), columns.restarts), ("CrashLoopBackOff", 1), "the other came first");
    let described = bed.kubectl(&["describe", "pod", "stranger"]).expect();
    assert!(described.contains("starts after the others, in back-off"), "{described}");
    running("stranger", 2);
    assert!(agent.stop().success());
}
