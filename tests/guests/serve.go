// net/http on the first listener that it is given: answers each request with its number and its path.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
)

func main() {
	fd, err := strconv.ParseUint(os.Getenv("LISTEN_FDS_START"), 10, 31)
	if err != nil {
		log.Fatalf("LISTEN_FDS_START says where the listener is: %v", err)
	}
	listener, err := net.FileListener(os.NewFile(uintptr(fd), "listener"))
	if err != nil {
		log.Fatal(err)
	}
	var served atomic.Int64
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(answer, "go %d %s\n", served.Add(1)-1, request.URL.Path)
	})
	log.Fatal(http.Serve(listener, nil))
}
