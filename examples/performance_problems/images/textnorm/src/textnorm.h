#ifndef TEXTNORM_H
#define TEXTNORM_H

/* All of them change the string in place and return it. */

char *tn_fold(char *text);
char *tn_squeeze(char *text);
char *tn_strip(char *text, const char *unwanted);
char *tn_slug(char *text);

#endif
