package main

// CustomResourceDefinitions that are there before the controllers start.

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// createCRDs makes CRDs known before the controllers start. The garbage collector looks for new
// resource types only every 30 s; one that exists at its start is collected from the outset.
func createCRDs(ctx context.Context, cfg *rest.Config, client kubernetes.Interface, path string) error {
	if path == "" {
		return nil
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return err
	}
	files := []string{path}
	if info, err := os.Stat(path); err != nil {
		return err
	} else if info.IsDir() {
		files, _ = filepath.Glob(filepath.Join(path, "*.y*ml"))
	}
	crds := dyn.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	var made []metav1.GroupKind
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(b))); ; {
			doc, err := r.Read()
			if err == io.EOF {
				break
			} else if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(doc, &u.Object); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if u.GetKind() != "CustomResourceDefinition" {
				continue
			}
			if _, err := crds.Create(ctx, u, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("%s: %w", file, err)
			}
			group, _, _ := unstructured.NestedString(u.Object, "spec", "group")
			kind, _, _ := unstructured.NestedString(u.Object, "spec", "names", "kind")
			made = append(made, metav1.GroupKind{Group: group, Kind: kind})
		}
	}
	return until(ctx, "CRDs in discovery", func() error {
		known := map[metav1.GroupKind]bool{}
		lists, err := client.Discovery().ServerPreferredResources() // what the garbage collector asks
		if err != nil {
			return err
		}
		for _, l := range lists {
			gv, _ := schema.ParseGroupVersion(l.GroupVersion)
			for _, r := range l.APIResources {
				known[metav1.GroupKind{Group: gv.Group, Kind: r.Kind}] = true
			}
		}
		for _, m := range made {
			if !known[m] {
				return fmt.Errorf("%v is not served", m)
			}
		}
		return nil
	})
}
