/* Runs a fuzz target on files, where there is no libFuzzer: replay FILE... */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int count, char **names) {
    for (int k = 1; k < count; k++) {
        FILE *file = fopen(names[k], "rb");
        static uint8_t bytes[1 << 20];
        if (file == NULL) {
            perror(names[k]);
            return 1;
        }
        size_t size = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        uint8_t *exact = malloc(size + 1); /* so that a sanitizer sees its end */
        for (size_t i = 0; i < size; i++) {
            exact[i] = bytes[i];
        }
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%d files replayed\n", count - 1);
    return 0;
}
