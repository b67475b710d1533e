//! Probes and hooks of a container.

use serde_json::Value;

use super::object;

object! {
    /// What is asked of a container again and again.
    Probe {
        exec: Option<ExecAction>,
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        grpc: Option<GrpcAction>,
        initial_delay_seconds: Option<i32>,
        timeout_seconds: Option<i32>,
        period_seconds: Option<i32>,
        success_threshold: Option<i32>,
        failure_threshold: Option<i32>,
        termination_grace_period_seconds: Option<i64>,
    }
}

object! {
    /// What is done when a container begins and before it is stopped.
    Lifecycle {
        post_start: Option<LifecycleHandler>,
        pre_stop: Option<LifecycleHandler>,
    }
}

object! {
    /// One such thing.
    LifecycleHandler {
        exec: Option<ExecAction>,
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        sleep: Option<SleepAction>,
    }
}

object! {
    /// A command in the container.
    ExecAction {
        command: Vec<String>,
    }
}

object! {
    /// A request by HTTP.
    HttpGetAction {
        path: String,
        host: String,
        scheme: String,
        http_headers: Vec<HttpHeader>,
    } always {
        /// A number, or the name of one of the container's ports.
        port: Value,
    }
}

object! {
    /// A header of it.
    HttpHeader {
    } always {
        name: String,
        value: String,
    }
}

object! {
    /// A connection by TCP.
    TcpSocketAction {
        host: String,
    } always {
        /// A number, or the name of one of the container's ports.
        port: Value,
    }
}

object! {
    /// A call of `grpc.health.v1.Health/Check`.
    GrpcAction {
        service: String,
        mode: String,
    } always {
        port: i32,
    }
}

object! {
    /// A wait.
    SleepAction {
    } always {
        seconds: i64,
    }
}
