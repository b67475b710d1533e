// hello 0, hello 1, … once a second, through Go's own runtime for WASI.
package main

import (
	"fmt"
	"time"
)

func main() {
	for n := 0; ; n++ {
		fmt.Printf("hello %d\n", n)
		time.Sleep(time.Second)
	}
}
