// A server that says of itself how it is, by HTTP/1.1, HTTP/2 and gRPC on the listener `web`, by HTTPS on `tls`:
// GET /set/503 changes what /healthz answers, and whether grpc.health.v1.Health/Check says SERVING; /write puts the
// file of its second argument there. As `check FILE` it says whether that file is there, and ends.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

var status atomic.Int64

func main() {
	if len(os.Args) > 2 && os.Args[1] == "check" {
		text, err := os.ReadFile(os.Args[2])
		if err != nil {
			fmt.Println("not yet:", err)
			os.Exit(3)
		}
		fmt.Printf("there is %s\n", text)
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "leave" {
		if err := os.WriteFile(os.Args[2], []byte("left"), 0o666); err != nil {
			log.Fatal(err)
		}
		return
	}
	status.Store(http.StatusOK)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(answer http.ResponseWriter, _ *http.Request) {
		answer.WriteHeader(int(status.Load()))
	})
	mux.HandleFunc("GET /set/{code}", func(answer http.ResponseWriter, request *http.Request) {
		code, _ := strconv.Atoi(request.PathValue("code"))
		status.Store(int64(code))
		fmt.Fprintln(answer, "set")
	})
	mux.HandleFunc("GET /write", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(answer, os.WriteFile(os.Args[1], []byte("ok"), 0o666))
	})
	mux.HandleFunc("GET /moved", func(answer http.ResponseWriter, request *http.Request) {
		http.Redirect(answer, request, "/healthz", http.StatusFound)
	})
	mux.HandleFunc("GET /away", func(answer http.ResponseWriter, request *http.Request) {
		http.Redirect(answer, request, "http://elsewhere.example/", http.StatusFound)
	})
	mux.HandleFunc("GET /slow", func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) })
	mux.HandleFunc("POST /grpc.health.v1.Health/Check", check)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Handler: mux, Protocols: protocols}
	first, _ := strconv.Atoi(os.Getenv("LISTEN_FDS_START"))
	for index, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		listener, err := net.FileListener(os.NewFile(uintptr(first+index), name))
		if err != nil {
			log.Fatal(err)
		}
		if name == "tls" {
			listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate()}})
		}
		go func() { log.Fatal(server.Serve(listener)) }()
	}
	fmt.Println("up")
	select {}
}

// check answers with a HealthCheckResponse: SERVING (1) or NOT_SERVING (2); a service `none` is not known.
func check(answer http.ResponseWriter, request *http.Request) {
	asked, _ := io.ReadAll(request.Body)
	answer.Header().Set("Content-Type", "application/grpc")
	answer.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	if strings.HasSuffix(string(asked), "none") {
		answer.Header().Set("Grpc-Status", "5")
		answer.Header().Set("Grpc-Message", "unknown service")
		return
	}
	serving := byte(1)
	if status.Load() != http.StatusOK {
		serving = 2
	}
	message := []byte{0x08, serving}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	answer.Write(append(frame, message...))
	answer.Header().Set("Grpc-Status", "0")
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
