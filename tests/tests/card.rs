//! A card as cross/image makes it: flashed, booted, found in the cluster; its power cut, the network gone, its data lost.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use serde_json::json;
use tests::{
    bed::NODE,
    board::Machine,
    card::{time_server, Card},
    cluster::{pod, pod_spec, PULL_SECRET},
    guests::Guest,
    Bed,
};

/// The hello pod's image, in the registry with TLS and a password.
const IMAGE: &str = "registry.test:5000/test/hello:v1";
/// How long joining, and each step after it, may take on an emulated core that is shared.
const STEP: Duration = Duration::from_secs(180);

#[test]
fn a_card_joins_runs_again_without_a_network_and_says_when_its_data_is_lost() {
    let bed = Bed::start();
    let registry = bed.registry_tls();
    bed.pull_secret(PULL_SECRET, &registry, &registry.password);
    bed.wasm_to_oci(Guest::Hello, IMAGE);

    // Without a bootstrap file it belongs to no cluster, says what to do, and runs what is in its folder.
    let mut card = Card::flashed(&bed, "virt", "card", NODE);
    let plain = bed.registry_plain();
    let image = plain.image("test/hello:v1");
    let module = Guest::Hello.wasm();
    bed.copepod(&["push", "--insecure-registries", &plain.host, &module.to_string_lossy(), &image]).expect();
    card.drop_file(&bed.folder().join("hosts"), "hosts");
    let settings = format!("nodeName: alone\ninsecureRegistries: [{}]\n", plain.host);
    card.drop_file(&bed.write("alone.yaml", &settings), "copepod.yaml");
    let address = "ADDRESS=10.0.2.15/24\r\nGATEWAY=10.0.2.2\r\nDNS=\"10.0.2.3\"\r\n";
    card.drop_file(&bed.write("network.conf", address), "network.conf");
    let spec = json!({"containers": [{"name": "main", "image": image}]});
    card.drop_file(&bed.write("hello.yaml", &pod("hello", spec).to_string()), "pods/hello.yaml");
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["copepod bootstrap --output copepod-bootstrap.conf"]);
    card.wait_for_line(&bed, STEP, &["the data partition has 319 MiB now"]);
    card.wait_for_line(&bed, STEP, &["eth0 has 10.0.2.15/24"]);
    card.wait_for_line(&bed, STEP, &["static pods run here, in no cluster"]);
    card.wait_for_line(&bed, STEP, &["pod default/hello-alone", "Container started"]);
    card.cut_power();
    card.remove_folder("pods");

    // Its board has no clock that goes on without power.
    card.old_clock = true;
    card.drop_file(&bed.write("network.conf", "NTP=10.0.2.2\n"), "network.conf");
    let time = time_server(&bed);
    let settings = bed.folder().join("copepod.yaml");
    fs::write(&settings, format!("nodeName: carded\nnodeIp: {NODE}\n"))
        .expect("the bed's folder is writable");
    let bootstrap = bed.bootstrap("card-bootstrap.conf", &[]);
    let token = fs::read_to_string(&bootstrap).expect("it is there");
    let token = token
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "))
        .expect("it has a token")
        .to_owned();
    card.drop_file(&settings, "copepod.yaml");
    card.drop_file(&bootstrap, "copepod-bootstrap.conf");
    card.drop_file(bed.registry_authority(), "ca.crt");
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the bootstrap file was moved to the data partition"]);
    assert!(!card.console().contains("the data partition has"), "it has grown already");
    card.wait_for_line(&bed, STEP, &["the clock was set by 10.0.2.2: 20"]);
    bed.wait_until_ready("carded", STEP);
    bed.approve("carded", STEP);
    let mut spec = pod_spec("Always", IMAGE, &[]);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": "carded"});
    bed.apply_value(&pod("hello", spec));
    bed.wait_for_columns("default", "hello", STEP, |columns| columns.ready == "1/1");
    bed.wait_for("its first lines", STEP, || {
        bed.kubectl(&["logs", "hello"]).stdout.starts_with("hello 0\nhello 1\n").then_some(())
    });
    // The system's own logs, without SSH.
    let logs = bed.kubectl(&["get", "--raw", "/api/v1/nodes/carded/proxy/logs/card"]).expect();
    assert!(logs.contains("card: starting copepod as carded"), "{logs}");
    card.cut_power();
    let left = card.dropped();
    assert!(left.contains("copepod.yaml") && !left.contains("copepod-bootstrap.conf"), "{left}");
    let in_boot = &card.bytes()[1 << 20..193 << 20];
    assert!(
        !in_boot.windows(token.len()).any(|bytes| bytes == token.as_bytes()),
        "the token is wiped from the partition that any computer reads"
    );

    // Without the API server, the registry and the time it runs what it ran.
    bed.api_server_away(true);
    drop(time);
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["pod hello_default", "taken up where it was"]);
    std::thread::sleep(Duration::from_secs(10));
    assert!(!card.console().contains("the clock was set"), "{}", card.console());
    bed.api_server_away(false);
    let time = time_server(&bed);
    bed.wait_for_columns("default", "hello", STEP, |columns| {
        (columns.ready.as_str(), columns.restarts) == ("1/1", 1)
    });
    bed.wait_until_ready("carded", STEP);
    let lines = bed.kubectl(&["logs", "hello", "--timestamps"]).expect();
    assert!(lines.starts_with("1970-01-01T00:00:"), "it ran before the clock was set: {lines}");
    drop(time);
    card.cut_power();

    card.lose_data();
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the data partition is not there: making another"]);
    card.wait_for_line(&bed, STEP, &["this machine belongs to no cluster yet"]);
    assert!(!card.console().contains("running from memory"), "another was made: {}", card.console());
    card.cut_power();

    // Full: it comes up, and says so; and what was dropped stays where it is.
    card.fill_data();
    card.drop_file(&bootstrap, "copepod-bootstrap.conf");
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the data partition is nearly full"]);
    card.cut_power();
    assert!(card.dropped().contains("copepod-bootstrap.conf"), "{}", card.dropped());
}

#[test]
fn an_upgrade_is_whole_or_not_at_all_and_a_system_that_does_not_work_is_left_again() {
    let bed = Bed::empty();
    let mut card = Card::flashed(&bed, "virt", "upgraded", NODE);
    let good = Card::upgrade(&bed, "good", &Machine::Arm64.agent());
    let name = "copepod-upgrade.tar.gz";
    assert_eq!(card.slot(), "a");

    // Cut off: it is refused, and the system goes on.
    let half = bed.folder().join("half.tar.gz");
    let bytes = fs::read(&good).expect("it was made");
    fs::write(&half, &bytes[..bytes.len() / 2]).expect("the bed's folder is writable");
    card.drop_file(&half, name);
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the upgrade is not whole", "a goes on"]);
    card.cut_power();
    assert!(card.slot() == "a" && card.dropped().contains("copepod-upgrade.bad"), "{}", card.dropped());

    // Of another board: likewise.
    let other = "mkdir other && tar -xzf good-upgrade.tar.gz -C other && cd other && echo raspberry-pi-4 >board && rm SHA256SUMS && \
                 sha256sum * >../SHA256SUMS && mv ../SHA256SUMS . && tar -czf ../other.tar.gz .";
    bed.shell(other).expect();
    card.drop_file(&bed.folder().join("other.tar.gz"), name);
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the upgrade is for the board raspberry-pi-4", "for virt", "a goes on"]);
    card.cut_power();
    assert!(card.slot() == "a" && !card.dropped().contains(name), "{}", card.dropped());

    // The power goes while it is unpacked: it begins anew.
    card.drop_file(&good, name);
    card.power(&bed);
    card.wait_for_line(&bed, STEP, &["unpacking the upgrade into b"]);
    std::thread::sleep(Duration::from_millis(500));
    card.kill();
    assert_eq!(card.slot(), "a");
    card.power(&bed);
    card.wait_for_line(&bed, STEP, &["starting again"]);
    card.wait_for_restart();
    card.cut_power();
    assert!(card.slot() == "b" && !card.dropped().contains(name), "{}", card.dropped());
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the system b is on trial"]);
    card.wait_for_line(&bed, STEP, &["the system b is good"]);
    card.cut_power();

    // One whose agent does not work is left again for the one before.
    let broken = bed.folder().join("broken");
    fs::write(&broken, "#!/bin/sh\necho it does not work\nexit 1\n").expect("the bed's folder is writable");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("it is ours");
    card.drop_file(&Card::upgrade(&bed, "bad", &broken), name);
    card.power(&bed);
    card.wait_for_restart();
    assert_eq!(card.slot(), "a");
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["back to the one before"]);
    card.wait_for_restart();
    assert_eq!(card.slot(), "b");
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["static pods run here, in no cluster"]);
    assert!(!card.console().contains("trial"), "{}", card.console());
    card.cut_power();
}

/// A wireless network of the emulator's own: WPA2, and a DHCP server; what listens on the air is the same kernel's second radio.
const ACCESS_POINT: [(&str, &str); 4] = [
    (
        "access-point",
        "#!/bin/busybox sh\n/bin/busybox mkdir -p /dev\n/bin/busybox mknod /dev/null c 1 3\n\
         /bin/busybox sh /on-the-air &\nexec /init\n",
    ),
    (
        "on-the-air",
        "until [ -e /sys/class/net/wlan1 ]; do /bin/busybox sleep 0.2; done\n\
         wpa_supplicant -B -i wlan1 -D nl80211 -c /network.conf\n\
         ip address add 192.168.77.1/24 dev wlan1\ntouch /leases\nudhcpd /dhcp.conf\n",
    ),
    (
        "network.conf",
        "network={\nssid=\"greenhouse\"\nmode=2\nfrequency=2412\nkey_mgmt=WPA-PSK\nproto=RSN\npsk=\"tomatoes and beans\"\n}\n",
    ),
    ("dhcp.conf", "start 192.168.77.20\nend 192.168.77.20\ninterface wlan1\nlease_file /leases\n"),
];

#[test]
fn a_card_joins_the_wireless_network_it_is_told_of() {
    let bed = Bed::empty();
    let mut card = Card::flashed(&bed, "virt", "wireless", NODE);
    let files = ACCESS_POINT.map(|(name, text)| bed.write(name, text));
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o755)).expect("it is ours");
    let names = ACCESS_POINT.map(|(name, _)| name).join("\n");
    bed.shell(&format!("printf '{names}' | cpio --quiet -o -H newc | gzip >access-point.img")).expect();
    card.beside = Some((bed.folder().join("access-point.img"), "/access-point"));
    let network = "country=CH\r\nnetwork={\r\n\tssid=\"greenhouse\"\r\n\tpsk=\"tomatoes and beans\"\r\n}\r\n";
    card.drop_file(&bed.write("wpa_supplicant.conf", network), "wpa_supplicant.conf");
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["wlan0 has 192.168.77.20"]);
    assert!(!card.console().contains("cannot load"), "{}", card.console());
    card.cut_power();
}

/// As far as the emulator's Raspberry Pi goes: it has no network that its kernel knows, and no clock.
#[test]
fn a_raspberry_pi_3_starts_the_agent_from_its_card() {
    let bed = Bed::empty();
    let mut card = Card::flashed(&bed, "raspberry-pi-3", "pi", NODE);
    // The emulator's watchdog hangs its board when it is opened; that of tests/tests/boards.rs does not.
    let settings = bed.folder().join("copepod.yaml");
    fs::write(&settings, "watchdogDevice: none\n").expect("the bed's folder is writable");
    card.drop_file(&settings, "copepod.yaml");
    card.boot(&bed);
    card.wait_for_line(&bed, STEP, &["the data partition has 319 MiB now"]);
    card.wait_for_line(
        &bed,
        STEP,
        &["board file raspberry-pi-3: the device tree says raspberrypi,3-model-b"],
    );
    card.wait_for_line(&bed, STEP, &["static pods run here, in no cluster"]);
    card.cut_power();
}
