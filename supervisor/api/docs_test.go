package api

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"gpm/config"
)

// Everything that --json prints is documented by its name.
func TestTheShapeIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() || typ == reflect.TypeFor[config.App]() {
			return
		}
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.Anonymous && !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("docs/json.md does not say what %s of %s is", name, typ)
			}
			look(f.Type)
		}
	}
	look(reflect.TypeFor[List]())
	look(reflect.TypeFor[Description]())
}
