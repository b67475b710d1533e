// A large program: much of Go's library, linked and used, for as many seconds as its argument says. Prints how often
// it went round, and that each round had the same result.
package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/printer"
	"go/token"
	"go/types"
	"html/template"
	"image/jpeg"
	"image/png"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httputil"
	"net/rpc"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// What is linked whether it is called or not: each is a root of its package.
var linked = []any{
	zip.NewReader, ecdsa.GenerateKey, elliptic.P256, rand.Reader, tls.Dial, x509.ParseCertificate, importer.Default,
	jpeg.Decode, png.Decode, slog.New, http.ListenAndServe, http.DefaultTransport, httputil.NewSingleHostReverseProxy,
	rpc.Dial, types.Universe,
}

const source = `package p; import "fmt"; type T[K comparable] struct { m map[K]int }
func (t *T[K]) Add(k K) { t.m[k]++ }
func main() { t := &T[string]{m: map[string]int{}}; for i := 0; i < 10; i++ { t.Add(fmt.Sprint(i)) } }`

func round() string {
	hash := sha256.New()
	note := func(text string) { io.WriteString(hash, text) }

	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "p.go", source, 0)
	if err != nil {
		panic(err)
	}
	ast.Inspect(file, func(node ast.Node) bool { note(fmt.Sprintf("%T", node)); return true })
	var printed bytes.Buffer
	printer.Fprint(&printed, files, file)
	note(printed.String())

	words := regexp.MustCompile(`[a-z]+`).FindAllString(strings.Repeat(source, 20), -1)
	sort.Strings(words)
	text, err := json.Marshal(map[string]any{"words": words, "n": len(words)})
	if err != nil {
		panic(err)
	}
	var back map[string]any
	if err := json.Unmarshal(text, &back); err != nil {
		panic(err)
	}
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	writer.Write(text)
	writer.Close()
	reader, err := gzip.NewReader(&packed)
	if err != nil {
		panic(err)
	}
	unpacked, err := io.ReadAll(reader)
	if err != nil {
		panic(err)
	}
	hash.Write(unpacked)
	var coded bytes.Buffer
	gob.NewEncoder(&coded).Encode(words)
	hash.Write(coded.Bytes())
	marked, _ := xml.Marshal(struct{ Word []string }{words})
	hash.Write(marked)
	page := template.Must(template.New("p").Parse(`{{range .}}<li>{{.}}</li>{{end}}`))
	page.Execute(hash, words)
	n := new(big.Int).Exp(big.NewInt(3), big.NewInt(2000), new(big.Int).Lsh(big.NewInt(1), 521))
	note(n.String())
	return fmt.Sprintf("%x", hash.Sum(nil))
}

func main() {
	seconds, err := strconv.Atoi(os.Args[1])
	if err != nil || len(linked) == 0 {
		panic("how many seconds?")
	}
	first, rounds := round(), 1
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); rounds++ {
		if again := round(); again != first {
			panic("round " + strconv.Itoa(rounds) + " has another result")
		}
	}
	fmt.Println("rounds, all the same:", rounds)
}
