//! Images that no pod has any more make room: for one that is pulled, and where the disk is too full.

use std::{fs, os::unix::fs::symlink, time::Duration};

use serde_json::{json, Value};
use tests::{
    agent::data_dir,
    bed::HOSTNAME,
    cluster::{pod, pod_spec},
    guests::Guest,
    Bed, Cluster,
};

/// How long a state may take to show on a busy machine: a node tells of its images every ten seconds, and looks ten
/// seconds after its start for those that must go.
const SHOWN: Duration = Duration::from_secs(90);
/// The disk: room for two of the images, as a pull leaves 4 MiB free.
const DISK: &str = "size=12m";
const MIB: usize = 1 << 20;

/// Pushes a program that sleeps, made larger by a custom section of so many MiB.
#[track_caller]
fn push(cluster: &Cluster, name: &str, mib: usize) -> String {
    let mut module = fs::read(Guest::SleepC.wasm()).expect("guests are built");
    let mut section = vec![u8::try_from(name.len()).expect("names are short")];
    section.extend(name.as_bytes());
    section.resize(mib * MIB, b'.');
    module.push(0);
    let mut size = section.len();
    while size >= 0x80 {
        module.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    module.push(size as u8);
    module.extend(section);
    let file = cluster.bed.folder().join(format!("{name}.wasm"));
    fs::write(&file, module).expect("the bed's folder can be written to");
    let image = cluster.registry.image(&format!("test/{name}:v1"));
    cluster.bed.login(&cluster.registry);
    cluster.bed.copepod(&["push", &file.to_string_lossy(), &image]).expect();
    image
}

#[track_caller]
fn run(cluster: &Cluster, name: &str, image: &str) {
    cluster.bed.apply_value(&pod(name, pod_spec("Always", image, &[])));
}

#[track_caller]
fn wait_until_running(cluster: &Cluster, name: &str) {
    cluster.bed.wait_for_columns("default", name, SHOWN, |columns| columns.status == "Running");
}

/// Waits until the node tells that it has these of the images, and no other of them.
#[track_caller]
fn wait_for_images(cluster: &Cluster, all: &[&String], those: &[&String]) {
    cluster.bed.wait_for(&format!("the node to have {those:?} alone"), SHOWN, || {
        let node = cluster.bed.get(&["node", HOSTNAME]);
        let images = node["status"]["images"].as_array().cloned().unwrap_or_default();
        let names: Vec<&Value> =
            images.iter().filter_map(|image| image["names"].as_array()).flatten().collect();
        let is_here = |image: &&String| names.iter().any(|name| **name == ***image);
        all.iter().all(|image| is_here(image) == those.contains(image)).then_some(())
    });
}

#[test]
fn images_that_no_pod_has_make_room_and_the_others_stay() {
    let bed = Bed::start();
    // In the bed's own namespace.
    symlink("/mnt", data_dir(&bed, HOSTNAME)).expect("the bed's folder can be written to");
    let mut mount = bed.command("mount");
    mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs", "/mnt"]);
    assert!(mount.status().expect("nsenter runs").success());
    let config = bed.write("copepod.yaml", "imageGcHighThreshold: 100\n");
    let mut cluster = Cluster::start_in(bed, &["--config", &config.to_string_lossy()]);

    let (kept, old) = (push(&cluster, "kept", 3), push(&cluster, "old", 3));
    let (new, large) = (push(&cluster, "new", 4), push(&cluster, "large", 9));
    // A thousandth of that comes over the wire.
    let layers = ["head -c 6M /dev/zero >zeros"];
    let data = cluster.bed.push_layers(&cluster.registry, "test/data", "v1", &layers);
    let all = [&kept, &old, &new, &large, &data];
    run(&cluster, "kept", &kept);
    run(&cluster, "old", &old);
    wait_until_running(&cluster, "kept");
    wait_until_running(&cluster, "old");
    // An image whose pod runs does not go for another's sake, and what fits nowhere is told.
    run(&cluster, "large", &large);
    let too_full = cluster.bed.wait_for("an event that says why", SHOWN, || {
        let told = cluster.bed.kubectl(&["describe", "pod", "large"]).expect();
        told.lines().find(|line| line.contains("bytes free, and the module needs")).map(str::to_owned)
    });
    assert!(too_full.contains("Failed to pull image"), "{too_full}");
    wait_for_images(&cluster, &all, &[&kept, &old]);
    cluster.bed.kubectl(&["delete", "pod", "large", "old"]).expect();

    run(&cluster, "new", &new);
    wait_until_running(&cluster, "new");
    wait_for_images(&cluster, &all, &[&kept, &new]);
    let removed = format!("image {old} is removed: no pod here has it");
    cluster.agent.wait_for_line(&cluster.bed, SHOWN, &[&removed]);

    // Files that take more than was to be seen from outside.
    cluster.bed.kubectl(&["delete", "pod", "new"]).expect();
    let mut spec = pod_spec("Always", &kept, &[]);
    spec["volumes"] = json!([{"name": "data", "image": {"reference": data}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    cluster.bed.apply_value(&pod("data", spec));
    wait_until_running(&cluster, "data");
    wait_for_images(&cluster, &all, &[&kept, &data]);
    let told = cluster.bed.kubectl(&["describe", "pod", "data"]).expect();
    assert!(told.contains("Successfully pulled image") && !told.contains("Failed"), "{told}");

    // In another life of the agent a threshold, which the one image in use passes by itself.
    cluster.bed.kubectl(&["delete", "pod", "data"]).expect();
    cluster.bed.write("copepod.yaml", "imageGcHighThreshold: 20\nimageGcLowThreshold: 10\n");
    cluster.agent.die();
    cluster.agent.start_again(&cluster.bed);
    wait_for_images(&cluster, &all, &[&kept]);
    cluster.agent.wait_for_line(&cluster.bed, SHOWN, &["WARN", "should go, and images that no pod has"]);
    wait_until_running(&cluster, "kept");
    let columns = cluster.bed.kubectl(&["get", "pod", "kept", "--no-headers"]).expect();
    assert!(columns.contains("1/1"), "{columns}");
}
