//! Each form of one set of figures, as a scraper reads it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn figures() -> Figures {
    let used = Usage { cpu: Duration::from_micros(1_500_007), memory: 131_072, received: 10, sent: 20 };
    let container = ContainerFigures {
        name: "main".to_owned(),
        id: "c0ffee".to_owned(),
        image: "registry/\"odd\"\\name".to_owned(),
        started: at(1_000_000_100),
        used,
        memory_limit: 1 << 20,
        cpu_limit: Some(250),
        cpu_request: 100,
    };
    let pod = PodFigures {
        pod: PodKey { namespace: "ns".to_owned(), name: "p".to_owned(), uid: "u-1".to_owned() },
        started: at(1_000_000_090),
        used: Usage { cpu: Duration::from_secs(4), ..used },
        files: (8192, 3),
        files_limit: 1 << 30,
        containers: vec![container],
        probes: vec![ProbeCount {
            container: "main".to_owned(),
            kind: "Liveness",
            result: "failed",
            count: 7,
        }],
    };
    let over = PodFigures {
        pod: PodKey { namespace: "ns".to_owned(), name: "over".to_owned(), uid: "u-2".to_owned() },
        containers: vec![],
        probes: vec![],
        ..pod.clone()
    };
    Figures {
        at: at(1_000_000_110),
        mono: Duration::from_secs(5000),
        machine: Machine {
            node: "pi".to_owned(),
            booted: at(1_000_000_000),
            cores: 4,
            cpu: Duration::from_secs(50),
            memory: 1000,
            available: 400,
            swapped: 5,
            disk: Disk { capacity: 100, available: 30, free: 40, inodes: 10, inodes_free: 4 },
            tasks: 80,
            max_tasks: 32768,
            interfaces: vec![("eth0".to_owned(), 7, 8)],
        },
        process: Process { written: Some(4096), resident: 5_000_000, ..Process::default() },
        counts: Counts {
            started: 3,
            failed: 1,
            api_server: "10.0.0.1:6443".to_owned(),
            requests: vec![("GET", 200, 12), ("PATCH", 0, 1)],
            client_certificate: Some(at(1_000_000_170)),
            serving_certificate: Some(at(1_000_000_000)),
            ..Counts::default()
        },
        pods: vec![pod, over],
    }
}

/// Name and labels of each sample, and its value with its time stamp; every family with a help and a type line
/// before, and no family twice.
fn read(text: &str) -> HashMap<String, String> {
    let mut samples = HashMap::new();
    let (mut family, mut seen) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(!seen.contains(&family), "{family} comes twice");
            seen.push(family.clone());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        } else {
            let (name, value) = match line.rfind('}') {
                Some(end) => line.split_at(end + 1),
                None => line.split_at(line.find(' ').unwrap()),
            };
            assert!(name.starts_with(&family) && !family.is_empty(), "{line}");
            assert_eq!(samples.insert(name.to_owned(), value.trim().to_owned()), None, "{name} comes twice");
        }
    }
    samples
}

#[test]
fn metrics_server_finds_nodes_pods_and_containers_with_the_time_of_the_figures() {
    let samples = read(&resource(&figures()));
    for (name, value) in [
        (
            "container_cpu_usage_seconds_total{container=\"main\",namespace=\"ns\",pod=\"p\"}",
            "1.500007000 1000000110000",
        ),
        (
            "container_memory_working_set_bytes{container=\"main\",namespace=\"ns\",pod=\"p\"}",
            "131072 1000000110000",
        ),
        (
            "container_start_time_seconds{container=\"main\",namespace=\"ns\",pod=\"p\"}",
            "1000000100.000 1000000110000",
        ),
        ("node_cpu_usage_seconds_total", "50.000000000 1000000110000"),
        ("node_memory_working_set_bytes", "600 1000000110000"),
        ("pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"}", "4.000000000 1000000110000"),
        ("resource_scrape_error", "0 1000000110000"),
    ] {
        assert_eq!(samples.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!samples.keys().any(|name| name.contains("over")), "what does not run uses nothing");
}

#[test]
fn cadvisors_names_have_cadvisors_labels_and_odd_ones_are_escaped() {
    let samples = read(&cadvisor(&figures()));
    let container =
        "{container=\"main\",id=\"c0ffee\",image=\"registry/\\\"odd\\\"\\\\name\",name=\"c0ffee\",\
                     namespace=\"ns\",pod=\"p\"}";
    let of = |name: &str| samples.get(&format!("{name}{container}")).map(String::as_str);
    assert_eq!(of("container_cpu_usage_seconds_total"), Some("1.500007000 1000000110000"));
    assert_eq!(of("container_memory_working_set_bytes"), Some("131072 1000000110000"));
    assert_eq!(of("container_spec_cpu_quota"), Some("25000 1000000110000"));
    assert_eq!(of("container_spec_cpu_shares"), Some("102 1000000110000"));
    assert_eq!(of("container_spec_memory_limit_bytes"), Some("1048576 1000000110000"));
    let machine =
        "container_memory_usage_bytes{container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"}";
    assert_eq!(samples.get(machine).map(String::as_str), Some("600 1000000110000"));
    let sent =
        "container_network_transmit_bytes_total{id=\"u-1\",interface=\"wasi\",namespace=\"ns\",pod=\"p\"}";
    assert_eq!(samples.get(sent).map(String::as_str), Some("20 1000000110000"));
    assert_eq!(samples.get("machine_cpu_cores").map(String::as_str), Some("4 1000000110000"));
}

#[test]
fn probes_and_the_agent_have_no_time_stamps() {
    let samples = read(&probes(&figures()));
    let name = "prober_probe_total{container=\"main\",namespace=\"ns\",pod=\"p\",pod_uid=\"u-1\",\
                probe_type=\"Liveness\",result=\"failed\"}";
    assert_eq!(samples, HashMap::from([(name.to_owned(), "7".to_owned())]));
    assert_eq!(probes(&Figures::default()), "");

    let samples = read(&agent(&figures()));
    for (name, value) in [
        ("kubelet_running_pods", "1"),
        ("kubelet_running_containers{container_state=\"running\"}", "1"),
        ("kubelet_started_containers_total", "3"),
        ("kubelet_started_containers_errors_total", "1"),
        ("rest_client_requests_total{code=\"200\",host=\"10.0.0.1:6443\",method=\"GET\"}", "12"),
        ("rest_client_requests_total{code=\"<error>\",host=\"10.0.0.1:6443\",method=\"PATCH\"}", "1"),
        ("kubelet_certificate_manager_client_ttl_seconds", "60.000000000"),
        ("kubelet_certificate_manager_server_ttl_seconds", "0.000000000"),
        ("process_resident_memory_bytes", "5000000"),
        ("copepod_storage_written_bytes_total", "4096"),
    ] {
        assert_eq!(samples.get(name).map(String::as_str), Some(value), "{name}");
    }
    let alone = agent(&Figures::default());
    assert!(!alone.contains("certificate") && !alone.contains("written"), "{alone}");
}

#[test]
fn a_summary_has_what_the_end_to_end_tests_of_kubernetes_dereference() {
    let found = summary(&figures(), &Rates::default(), false);
    let node = &found["node"];
    assert_eq!(node["nodeName"], "pi");
    assert_eq!(node["startTime"], "2001-09-09T01:46:40Z");
    assert_eq!(node["memory"]["workingSetBytes"], 600);
    assert_eq!(node["memory"]["availableBytes"], 400);
    assert_eq!(node["systemContainers"][0]["name"], "kubelet");
    assert_eq!(node["systemContainers"][0]["memory"]["rssBytes"], 5_000_000);
    assert_eq!(node["fs"]["usedBytes"], 60);
    assert_eq!(node["network"]["rxBytes"], 7);
    assert_eq!(node["rlimit"]["curproc"], 80);
    assert_eq!(found["pods"].as_array().unwrap().len(), 1, "what does not run is left out");
    let pod = &found["pods"][0];
    assert_eq!(pod["podRef"]["uid"], "u-1");
    assert_eq!(pod["cpu"]["usageCoreNanoSeconds"], 4_000_000_000_u64);
    assert_eq!(pod["containers"][0]["cpu"]["usageCoreNanoSeconds"], 1_500_007_000_u64);
    // 1.5 s of CPU since it began, ten seconds ago.
    assert_eq!(pod["containers"][0]["cpu"]["usageNanoCores"], 150_000_700);
    assert_eq!(pod["ephemeral-storage"]["usedBytes"], 8192);
    assert_eq!(pod["ephemeral-storage"]["inodesUsed"], 3);
    assert_eq!(pod["network"]["txBytes"], 20);
    let brief = summary(&figures(), &Rates::default(), true);
    assert!(brief["node"].get("fs").is_none() && brief["pods"][0].get("network").is_none());
    assert_eq!(brief["pods"][0]["containers"][0]["memory"]["usageBytes"], 131_072);
}

#[test]
fn a_rate_is_over_ten_seconds_or_more_once_somebody_has_asked_before() {
    let rates = Rates::default();
    let mut figures = figures();
    let mut ask = |after: u64, cpu: u64| {
        figures.mono = Duration::from_secs(5000 + after);
        figures.pods[0].containers[0].used.cpu = Duration::from_secs(cpu);
        let found = summary(&figures, &rates, true);
        found["pods"][0]["containers"][0]["cpu"]["usageNanoCores"].as_u64().unwrap() / 1_000_000
    };
    assert_eq!(ask(0, 2), 200, "since its start");
    assert_eq!(ask(1, 3), 300, "still");
    // At 20 s the sample of the first look is the one before.
    ask(20, 4);
    assert_eq!(ask(21, 6), (6 - 2) * 1000 / 21);
    ask(40, 10);
    assert_eq!(ask(45, 10), (10 - 4) * 1000 / 25);
    // It began anew.
    assert_eq!(ask(46, 1), 100);
}
