/** How a clone was made of its template. */
export type Strategy = 'reflink' | 'hardlink' | 'copy';
